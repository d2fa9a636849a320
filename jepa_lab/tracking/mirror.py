"""The mirror process, and `sync`: bring the MLflow record of a run folder up to date.

`python -m jepa_lab.tracking.mirror RUN_FOLDER --parent PID` follows a run that is going on; the run itself
never imports MLflow and never waits for it. The process ends when everything is sent and its parent has
closed its standard input or is gone; a run that is gone without `result.json` was killed. `sync` completes
records afterwards.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from jepa_lab.errors import JepaLabError, RunFolderError, RunStopped
from jepa_lab.output import unfailing_output
from jepa_lab.tracking.base import MirrorState
from jepa_lab.tracking.credentials import ScrubbingFormatter
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.mirror_cursor import mirror_state, sweep_of
from jepa_lab.tracking.mlflow_calls import TrackerAway
from jepa_lab.tracking.mlflow_sweep import open_mirror
from jepa_lab.tracking.run_folder import RunFolder

GRACE_SECONDS = 120.0  # how long a tracker that is away is waited for after the run has ended
_LONGEST_PAUSE = 30.0  # seconds between two attempts while the run goes on
_LONGEST_PAUSE_AT_END = 5.0  # somebody may be waiting
_NICENESS = 10  # training comes first on a busy machine
_log = logging.getLogger("jepa_lab.mirror")


def sync(run_folder: Path, lock_seconds: float = 10.0) -> MirrorState:
    """Bring the MLflow record of a run, or of a sweep with its trials, up to date, in this process.

    A run that is going on gets the rows so far; one that is not and left no `result.json` was killed, and
    MLflow is told so.

    Args:
        run_folder: the folder of a run or of a sweep; that of a trial stands for its sweep, which is one record.
        lock_seconds: how long to wait for a mirror that is at work on it.
    Returns:
        The state afterwards; `error` says why something is still missing, `still_sending` that the run or a mirror
        is at work on it.
    Raises:
        RunFolderError: if this is not a run folder, or a file of it is damaged.
        ConfigError: if the run is not mirrored.
    """
    folder = RunFolder.open(run_folder)
    folder = sweep_of(folder) or folder
    with _mirror_lock(folder) as lock:
        if not _acquired(lock, lock_seconds):
            return dataclasses.replace(mirror_state(folder), still_sending=True)
        mirror, alive = open_mirror(folder), folder.is_alive()
        try:
            mirror.push(ended=not alive)
        except TrackerAway as error:
            mirror.note_error(error)
        return dataclasses.replace(mirror_state(folder), still_sending=alive)


def folders_to_sync(run_root: Path) -> list[Path]:
    """The folders of runs and sweeps below `run_root` whose record is not complete and which are not being run.

    A folder that is damaged is among them: `sync` says what is wrong with it.

    Raises:
        RunFolderError: if there is no such folder.
    """
    if not run_root.is_dir():
        raise RunFolderError(f"there is no folder {run_root}; name the folder of the run folders with --runs")
    return [path for path in sorted(_run_folders(run_root)) if _needs_sync(path)]


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders of runs and sweeps at any depth; nothing is looked for inside them: a sweep is one record."""
    for name, inside, _ in os.walk(root):
        if (Path(name) / "run.json").is_file():
            inside.clear()
            yield Path(name)


def _needs_sync(path: Path) -> bool:
    try:
        folder = RunFolder.open(path)
        return not (mirror_state(folder).complete or folder.is_alive())
    except RunFolderError:
        return True


def follow(folder: RunFolder, parent: ParentWatch, grace_seconds: float = GRACE_SECONDS) -> bool:
    """Push whenever there may be something new, until the parent has ended and everything is sent.

    A tracker that is away is asked again after growing pauses: as long as the run goes on, and then for
    `grace_seconds`.

    Returns:
        Whether everything was sent.
    """
    with _mirror_lock(folder) as lock:
        while not _acquired(lock, grace_seconds):  # the mirror of the attempt before this one is still draining
            if parent.ended():
                return False
        mirror = open_mirror(folder)
        failures, give_up_at = 0, float("inf")
        while True:
            ended = parent.ended()  # before the push: what was written before the end is then sent
            if ended:
                give_up_at = min(give_up_at, time.monotonic() + grace_seconds)
            try:
                mirror.push(ended)
                failures = 0
            except (TrackerAway, RunStopped) as error:
                mirror.note_error(error)
                failures += 1
            if ended and failures == 0:
                _log.info("MLflow has everything")
                return True
            if time.monotonic() >= give_up_at:
                _log.warning("MLflow lacks something of the run; `jepa-lab sync %s` completes it", folder.path)
                return False
            if failures == 0:
                parent.wait(mirror.settings.flush_seconds)
            elif ended:
                time.sleep(pause_seconds(failures, ended))
            else:
                parent.wait(pause_seconds(failures, ended))


def pause_seconds(failures: int, ended: bool) -> float:
    """How long to leave a tracker alone after so many failures in a row: 1, 2, 4, ... seconds, up to a bound.

    MLflow's client does not hand on the header Retry-After of a server that says "too many requests".

    Args:
        ended: the run has ended, and somebody may be waiting.
    """
    return float(min(2 ** min(failures - 1, 10), _LONGEST_PAUSE_AT_END if ended else _LONGEST_PAUSE))


class ParentWatch:
    """Knows when the process that started this one has said that it is done, or is gone.

    The parent holds the other end of our standard input and closes it when it is done; the kernel closes it
    when the parent dies. A worker that the parent forked may hold a copy, so the parent's id is watched too.

    Args:
        parent_pid: the process that started this one.
    """

    def __init__(self, parent_pid: int) -> None:
        self._parent_pid = parent_pid
        self._closed = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def ended(self) -> bool:
        """Whether no more rows will come."""
        return self._closed.is_set() or os.getppid() != self._parent_pid

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than the parent lives."""
        deadline = time.monotonic() + seconds
        while not self.ended() and (left := deadline - time.monotonic()) > 0:
            self._closed.wait(min(left, 1.0))

    def _read(self) -> None:
        os.read(0, 1)  # "done", or the end of the pipe
        self._closed.set()


def _mirror_lock(folder: RunFolder) -> FileLock:
    folder = sweep_of(folder) or folder  # a trial that is resumed alone must not meet the mirror of its sweep
    return FileLock(folder.mirror_lock, f"the MLflow record of {folder.path}")


def _acquired(lock: FileLock, seconds: float) -> bool:
    """Whether the lock could be taken within so many seconds."""
    deadline = time.monotonic() + seconds
    while not lock.try_acquire():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def _log_to_standard_error() -> None:
    """Standard error is `mirror.log`; no credentials reach it, not even in the traceback of a crash."""
    handler = logging.StreamHandler()
    handler.setFormatter(ScrubbingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    _log.setLevel(logging.INFO)

    def log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _log.critical("the mirror crashed", exc_info=(kind, error, trace))

    sys.excepthook = log_crash


def main() -> int:
    """Run the mirror process; 0 if everything was sent."""
    parser = argparse.ArgumentParser(prog="python -m jepa_lab.tracking.mirror", description=__doc__)
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--parent", type=int, required=True, help="process id of the run")
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds to go on after the run's end")
    arguments = parser.parse_args()
    _log_to_standard_error()
    os.nice(_NICENESS)
    try:
        folder, parent = RunFolder.open(arguments.run_folder), ParentWatch(arguments.parent)
        return 0 if follow(folder, parent, arguments.grace) else 1
    except JepaLabError as error:
        _log.error("%s", error)
        return error.exit_code


if __name__ == "__main__":
    with unfailing_output():  # MLflow prints, too, and the disk of the log may be full
        code = main()
    sys.exit(code)
