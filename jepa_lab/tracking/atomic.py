"""Files that are either the old one or the new one, never half of one; and what a full disk means."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jepa_lab.errors import JepaLabError, RunFolderError, RunStopped

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FAILING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IMPOSSIBLE = {errno.ENOENT, errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}


def explain_os_error(error: OSError, path: Path) -> JepaLabError | None:
    """What a failed write means to the user, or None where it is not a known kind of failure.

    Returns:
        `RunStopped` for a full disk or quota, a failing one or too many open files; `RunFolderError` for a place
        that may not or cannot be written.
    """
    if error.errno in _FULL:
        return RunStopped(
            f"no space left to write {path}: {error.strerror}; free space on that file system "
            "(checkpoints/ of old run folders are the largest files), then resume with --resume"
        )
    if error.errno in _FAILING:
        return RunStopped(
            f"cannot write {path}: {error.strerror}; look after that file system, then resume with --resume"
        )
    if error.errno in _TOO_MANY:
        return RunStopped(
            f"cannot open {path}: {error.strerror}; raise the limit (`ulimit -n`), then resume with --resume"
        )
    if error.errno in _REFUSED:
        return RunFolderError(
            f"cannot write {path}: {error.strerror}; give yourself write permission there or choose another folder"
        )
    if error.errno in _IMPOSSIBLE:
        return RunFolderError(f"cannot write {path}: {error.strerror}; choose another folder")
    return None


@contextlib.contextmanager
def explained_writes(path: Path) -> Iterator[None]:
    """Turn the OSErrors of the block that a user can mend into errors that say how."""
    try:
        yield
    except OSError as error:
        explained = explain_os_error(error, path)
        if explained is None:
            raise
        raise explained from error


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a crash at any moment leaves the old file or the new one.

    Temporary file in the same folder, fsync, rename, fsync of the folder (or the rename may be lost).

    Raises:
        RunStopped: if the disk is full. RunFolderError: if the folder may not be written.
    """
    with explained_writes(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~umask())  # mkstemp's 0600 would hide the run from colleagues
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_bytes_atomically` for UTF-8 text."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_json_atomically(path: Path, value: Any) -> None:
    """`write_bytes_atomically` for JSON.

    Raises:
        ValueError: if `value` holds NaN or an infinity, which JSON does not have.
    """
    write_text_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask() -> int:
    """The process's umask; reading it means setting it, so it is put back at once."""
    current = os.umask(0o022)
    os.umask(current)
    return current
