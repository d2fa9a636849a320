"""A lock between processes that a dead owner does not hold for ever."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import explained_writes


class FileLock:
    """An exclusive `flock` on a file, which the kernel releases when its owner dies.

    Args:
        path: the lock file; it is created and stays (deleting it would let two owners in).
        what: what the lock guards, in words, for the message.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._file: IO[bytes] | None = None

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it; whether it was taken."""
        with explained_writes(self.path):
            file = open(self.path, "ab")  # noqa: SIM115 - the lock lives as long as the open file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def acquire(self, timeout_seconds: float) -> None:
        """Take the lock, waiting for its owner at most `timeout_seconds`.

        Raises:
            RunFolderError: if another process still holds it then.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                raise RunFolderError(
                    f"another process is at work on {self.what} (it holds {self.path}); "
                    "wait for it to end, or end it, and try again"
                )
            time.sleep(0.05)

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
