"""Signals become errors that say how a run was stopped; one process alone writes a run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from jepa_lab.errors import RunInterrupted, RunTerminated
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.run_folder import RunFolder


@contextmanager
def stoppable(stop: StopSignals) -> Iterator[StopSignals]:
    """Ctrl-C, SIGTERM and SIGHUP become errors with their exit code.

    Raises:
        RunInterrupted, RunTerminated: where the run itself has not said so already.
    """
    with stop:
        try:
            yield stop
        except KeyboardInterrupt as error:
            raise interruption(error, "before training started; run the same command again") from None


def interruption(error: KeyboardInterrupt, where: str) -> RunInterrupted:
    """The error that tells how a run was stopped."""
    if isinstance(error, StopRequested) and error.signal != signal.SIGINT:
        return RunTerminated(f"stopped by {error.signal.name} {where}", error.signal)
    return RunInterrupted(f"stopped by {signal.SIGINT.name} {where}")


@contextmanager
def locked(folder: RunFolder, timeout_seconds: float = 0) -> Iterator[None]:
    """Be the only process that writes the run.

    Args:
        timeout_seconds: how long to wait for another one to leave.
    Raises:
        RunFolderError: if another process is.
    """
    with FileLock(folder.path / "run.lock", f"the run {folder.path}") as lock:
        lock.acquire(timeout_seconds)
        yield
