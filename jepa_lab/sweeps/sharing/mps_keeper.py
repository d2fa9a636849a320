"""Keeps an MPS daemon for as long as anybody holds the other end of its standard input: `mps_keeper.py TOOL LOCK`.

The sweep holds that end, and so does each of its workers: the daemon outlives a sweep that was killed by as long as its
workers need to save their state, and not longer. A keeper that was killed itself leaves its daemon behind, which the
next keeper of the same folder takes over. Directories come from the environment, as the daemon's own do. On standard
output goes one line: READY, or why there is no daemon.

Run by its path, with the standard library alone: it starts at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

READY = "ready"
TOOL = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
LOGS = "CUDA_MPS_LOG_DIRECTORY"
_ANSWER_SECONDS = 10.0
_START_SECONDS = 30.0
_LOCK_SECONDS = 30.0


def answers(tool: str, pipes: Path) -> bool:
    """Whether a daemon is at work in a pipe directory."""
    return _ask(tool, pipes, "get_server_list")


def start(tool: str, pipes: Path, logs: Path) -> str | None:
    """Start a daemon, unless one of an earlier keeper is still there; why there is none, or None."""
    problem = _claim(pipes)
    if problem is not None or answers(tool, pipes):
        return problem
    said = logs / "start.log"
    with open(said, "wb") as output:  # no pipe: the daemon keeps what it inherits open
        try:
            code = subprocess.run(
                [tool, "-d"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_START_SECONDS,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{tool} -d: {error}"
    if code != 0 or not answers(tool, pipes):
        lines = said.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{tool} -d ended with code {code} and no daemon answers: {last} (logs in {logs})"
    return None


def stop(tool: str, pipes: Path) -> None:
    """End the daemon of a pipe directory and remove the directory; nothing happens if there is none."""
    if pipes.is_dir():
        if not _ask(tool, pipes, "quit"):
            _kill(pipes)
        shutil.rmtree(pipes, ignore_errors=True)


def _claim(pipes: Path) -> str | None:
    """Make the directory, which nobody else may write to: who can write there can speak for the daemon."""
    with contextlib.suppress(FileExistsError):
        pipes.mkdir(mode=0o700)
    found = pipes.lstat()
    if not pipes.is_dir() or pipes.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        return f"{pipes} must be a folder that is ours alone (mode 700), and it is not"
    return None


def _ask(tool: str, pipes: Path, command: str) -> bool:
    """Give the daemon a command; whether it took it."""
    environment = {**os.environ, PIPES: str(pipes)}
    try:
        done = subprocess.run(
            [tool],
            input=f"{command}\n".encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _kill(pipes: Path) -> None:
    """End a daemon that does not take commands; its number may meanwhile be another program's, which stays."""
    with contextlib.suppress(OSError, ValueError):
        number = int((pipes / f"{TOOL}.pid").read_text())
        name = Path(f"/proc/{number}/comm").read_text().strip()
        if name and TOOL.startswith(name):
            os.kill(number, signal.SIGKILL)


def _locked(file: IO[bytes]) -> bool:
    """Take a lock, waiting for workers of a killed sweep that still use the daemon before it."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)


def _tell(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the sweep is gone: the end of the standard input says so, too
        os.write(1, line.replace("\n", " ").encode() + b"\n")


def main() -> int:
    """Start the daemon, wait until nobody needs it, end it."""
    tool, lock = sys.argv[1:]
    pipes, logs = Path(os.environ[PIPES]), Path(os.environ[LOGS])
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # whoever gets them, too, saves its state on the GPU first
    with open(lock, "ab") as file:
        if not _locked(file):
            _tell(f"another process has held {lock} for {_LOCK_SECONDS:.0f} s")
            return 1
        problem = start(tool, pipes, logs)
        _tell(problem or READY)
        if problem is None:
            sys.stdin.buffer.read()
        elif _claim(pipes) is not None:
            return 1  # a folder of somebody else
        stop(tool, pipes)
    return 0 if problem is None else 1


if __name__ == "__main__":
    sys.exit(main())
