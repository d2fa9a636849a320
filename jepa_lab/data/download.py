"""Published files: downloads that explain what to do when there is no network, and digests that are checked."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from jepa_lab.errors import DataError, Problem, RunStopped

NEEDS_NO_FILES = "pipelines/digits.yaml needs no files"


def download_or_explain(
    download: Callable[[], None], problem: str, remedy: Problem, other_errors: tuple[type[Exception], ...] = ()
) -> None:
    """Run a download; if it fails, say what is missing and how to provide it by hand.

    Args:
        problem: what is missing where.
        remedy: which files to put where.
        other_errors: what else `download` raises when it fails.
    Raises:
        DataError: if the download fails; torchvision raises OSError (URLError) without a network, RuntimeError
            for a file with another digest than the published one, and passes on what servers and archives cause.
    """
    failures: tuple[type[Exception], ...] = (
        OSError,
        RuntimeError,
        http.client.HTTPException,
        EOFError,
        zlib.error,
        tarfile.TarError,
        zipfile.BadZipFile,
        *other_errors,
    )
    try:
        download()
    except failures as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{problem}, and the download failed ({reason}). ", remedy, f"; {NEEDS_NO_FILES}", keys=["dataset"]
        ) from error


def missing_files(problem: str, remedy: Problem) -> DataError:
    """The error for missing files where `download` is false."""
    text = (f"{problem}, and downloading is turned off. ", remedy, f"; {NEEDS_NO_FILES}")
    return DataError(*text, keys=["dataset"])


def has_md5(path: Path, digest: str) -> bool:
    """Whether the file's MD5 digest is the published one.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == digest
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable, or remove it") from error


def problem_with_files(title: str, folder: Path, published: Iterable[tuple[str, str | None]]) -> str | None:
    """What is wrong with the first file that is not as published, or None.

    Args:
        title: the data set's name.
        published: name and MD5 digest of each file in `folder`; None checks only that the file is there.
    Raises:
        DataError: if a file cannot be read.
    """
    for name, md5 in published:
        path = folder / name
        if not path.is_file():
            return f"{title} is not complete: {path} is missing"
        if md5 is not None and not has_md5(path, md5):
            return f"{title} is damaged: {path} has another MD5 digest than the published file"
    return None


def complete_folder(fill: Callable[[Path], Path], folder: Path) -> None:
    """Make a folder that exists only once it is complete, so that an interrupted unpacking never passes for one.

    Args:
        fill: unpacks into the empty folder that it is given, and returns what becomes `folder`: this one, or one in it.
    Raises:
        RunStopped: if the files cannot be written.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        fill(partial).rename(folder)
        if partial.exists():
            shutil.rmtree(partial)
    except OSError as error:
        raise RunStopped(
            f"unpacking into {folder} ended early ({error.strerror or error}); make room, or make it writable, "
            "and start again"
        ) from error
