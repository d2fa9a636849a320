"""What a Ray worker does for a trial: it starts the worker's command, passes a cancellation on, and says how it ended.

The driver sends this function by value, with no imports but those of Python itself: a machine where jepa-lab cannot be
imported can say so.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_LOOK_SECONDS = 0.5
_TAIL_BYTES = 4096


def perform_command(arguments: Sequence[str], environment: Mapping[str, str], reply: str, log: str) -> dict[str, Any]:
    """Perform a command of Python in a process of its own, to its end.

    The command ends with this process: its standard input is a pipe that closes. `ray.cancel` makes Ray raise
    KeyboardInterrupt here, which the command gets as SIGTERM.

    Args:
        arguments: of Python. environment: over that of the Ray worker.
        reply: file that the command writes. log: file for what it prints.
    Returns:
        host: where it ran. code: its exit code, or None where the log cannot be written; error: then why.
        reply: content of the file, if it is there; the sweep's machine may see it later. last: last line of the log.
    """
    host = socket.gethostname()
    paths = [environment.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    inner = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        return {"host": host, "code": None, "error": f"{log}: {error.strerror}", "reply": None, "last": ""}
    with os.fdopen(descriptor, "ab") as output:
        code = _run([sys.executable, *arguments], inner, output)
    return {"host": host, "code": code, "error": None, "reply": _text(reply), "last": _last_line(log)}


def _run(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> int:
    """The exit code of a command that runs to its end."""
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output) as process:
        while True:
            try:
                return process.wait(_LOOK_SECONDS)  # with a limit: Ray's interrupt does not end a system call
            except subprocess.TimeoutExpired:
                pass
            except KeyboardInterrupt:
                process.terminate()


def _text(file: str) -> str | None:
    path = Path(file)
    return path.read_text(encoding="utf-8") if path.exists() else None


def _last_line(log: str) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
