"""A lock between processes that a dead owner does not hold for ever."""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import explained_writes

_HELD: weakref.WeakSet[FileLock] = weakref.WeakSet()
"""Locks that this process holds."""


class LockHeld(RunFolderError):
    """Another process holds a lock."""


class FileLock:
    """An exclusive `flock` on a file, which the kernel releases when its owner dies.

    A lock belongs to the process that took it: a forked child gives up its copy of the open file at once, or the
    lock would live on in the workers of a killed run.

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
        _HELD.add(self)
        return True

    def is_held(self) -> bool:
        """Whether a process has the lock now."""
        if not self.try_acquire():
            return True
        self.release()
        return False

    def acquire(self, timeout_seconds: float) -> None:
        """Take the lock, waiting for its owner at most `timeout_seconds`.

        Raises:
            LockHeld: if another process still holds it then.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                raise LockHeld(
                    f"another process is at work on {self.what} (it holds {self.path}); "
                    "wait for it to end, or end it, and try again"
                )
            time.sleep(0.05)

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a child that was forked just now may still hold a copy
            self._forget()

    def _forget(self) -> None:
        assert self._file is not None, "only locks that are held are forgotten"
        self._file.close()
        self._file = None
        _HELD.discard(self)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _give_up_copies() -> None:
    """In a forked child: close the files, which does not unlock what the parent holds."""
    for lock in list(_HELD):
        lock._forget()


os.register_at_fork(after_in_child=_give_up_copies)
