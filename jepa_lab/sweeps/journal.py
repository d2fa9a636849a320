"""The journal: Optuna's storage in a file of the sweep folder, and what a full, failing or damaged one means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from jepa_lab.errors import RunFolderError, RunStopped, StorageUnavailable
from jepa_lab.tracking.atomic import explain_os_error

_LOCK_SUFFIX = ".lock"


def open_journal(path: Path) -> JournalStorage:
    """Optuna's storage in a journal, made if it is not there.

    Raises:
        StorageUnavailable: its file system is full or fails; also later, whenever it is read or written.
        RunFolderError: it may not be read or written, or is damaged; also later.
    """
    with _explained(path, "opened"):
        return JournalStorage(_Journal(path))


def fix_journal(path: Path) -> None:
    """Remove the lock of a dead owner, and cut off a line that it did not finish.

    Raises:
        StorageUnavailable, RunFolderError: see `open_journal`.
    """
    with _explained(path, "opened"):
        for left in path.parent.glob(f"{path.name}{_LOCK_SUFFIX}*"):
            left.unlink()
        if path.exists():
            content = path.read_bytes()
            end = content.rfind(b"\n") + 1
            if end < len(content):
                with open(path, "r+b") as file:
                    file.truncate(end)


class _Journal(JournalFileBackend):
    """Optuna's file, with errors for the user."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with _explained(self._path, "written"):
            super().append_logs(logs)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        with _explained(self._path, "read"):
            yield from super().read_logs(log_number_from)


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """A sweep on a file system that is full or fails was stopped from outside: all but its last line is kept."""
    try:
        yield
    except OSError as error:
        kind = StorageUnavailable if isinstance(explain_os_error(error, path), RunStopped) else RunFolderError
        raise kind(
            f"the sweep's journal {path} cannot be {what} ({error.strerror})",
            remedy="see to that file system and its permissions, then run the same command again to resume",
        ) from error
    except ValueError as error:  # of Optuna or of its JSON
        raise RunFolderError(
            f"the sweep's journal {path} is damaged ({error})",
            remedy="put it back from a copy; or remove it, and the sweep's command reads the finished trials again",
        ) from error
