"""The mirror process, and `sync`: bring the MLflow record of a run folder up to date.

`python -m jepa_lab.tracking.mirror RUN_FOLDER --parent PID` follows a run that is going on; the run itself
never imports MLflow and never waits for it. The process ends when everything is sent and its parent has
closed its standard input or is gone. `sync` completes the record of a run that is not going on.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from jepa_lab.errors import JepaLabError, RunStopped
from jepa_lab.tracking.base import MirrorState
from jepa_lab.tracking.credentials import ScrubbingFormatter
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.mirror_cursor import mirror_state
from jepa_lab.tracking.mlflow_mirror import Mirror
from jepa_lab.tracking.mlflow_store import TrackerAway
from jepa_lab.tracking.run_folder import RunFolder

GRACE_SECONDS = 120.0  # how long a tracker that is away is waited for after the run has ended
_LONGEST_PAUSE = 30.0  # seconds between two attempts while the run goes on
_LONGEST_PAUSE_AT_END = 5.0  # somebody may be waiting
_NICENESS = 10  # training comes first on a busy machine
_log = logging.getLogger("jepa_lab.mirror")


def sync(run_folder: Path, lock_seconds: float = 10.0) -> MirrorState:
    """Complete the MLflow record of a run that is not going on, in this process.

    Args:
        run_folder: the folder of a run.
        lock_seconds: how long to wait for a mirror that is at work on it.
    Returns:
        The state afterwards; `error` says why something is still missing.
    Raises:
        RunFolderError: if this is not a run folder, a file of it is damaged, or a mirror is at work on it.
        ConfigError: if the run is not mirrored.
    """
    folder = RunFolder.open(run_folder)
    with _mirror_lock(folder) as lock:
        lock.acquire(lock_seconds)
        mirror = Mirror(folder)
        try:
            mirror.push(ended=True)
        except TrackerAway as error:
            mirror.note_error(error)
        return mirror_state(folder)


def follow(folder: RunFolder, parent: ParentWatch, grace_seconds: float = GRACE_SECONDS) -> bool:
    """Push whenever there may be something new, until the parent has ended and everything is sent.

    A tracker that is away is asked again after growing pauses: as long as the run goes on, and then for
    `grace_seconds`.

    Returns:
        Whether everything was sent.
    """
    with _mirror_lock(folder) as lock:
        while not lock.try_acquire():  # the mirror of the attempt before this one is still draining
            time.sleep(0.2)
        mirror = Mirror(folder)
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
                return False
            if failures == 0:
                parent.wait(mirror.settings.flush_seconds)
            else:
                pause = min(2.0 ** (failures - 1), _LONGEST_PAUSE_AT_END if ended else _LONGEST_PAUSE)
                time.sleep(pause) if ended else parent.wait(pause)


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
    return FileLock(folder.mirror_lock, f"the MLflow record of {folder.path}")


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
    arguments = parser.parse_args()
    _log_to_standard_error()
    os.nice(_NICENESS)
    try:
        return 0 if follow(RunFolder.open(arguments.run_folder), ParentWatch(arguments.parent)) else 1
    except JepaLabError as error:
        _log.error("%s", error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
