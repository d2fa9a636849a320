"""Downloads that explain what to do when there is no network."""

from __future__ import annotations

from collections.abc import Callable

from jepa_lab.errors import DataError

NEEDS_NO_FILES = "pipelines/digits.yaml needs no files"


def download_or_explain(download: Callable[[], None], problem: str, remedy: str) -> None:
    """Run a download; if it fails, say what is missing and how to provide it by hand.

    Args:
        problem: what is missing where.
        remedy: which files to put where.
    Raises:
        DataError: if the download fails; torchvision raises OSError (URLError) without a network and
            RuntimeError for a file with another digest than the published one.
    """
    try:
        download()
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{problem}, and the download failed ({reason}). {remedy}; {NEEDS_NO_FILES}") from error


def missing_files(problem: str, remedy: str) -> DataError:
    """The error for missing files where `download` is false."""
    return DataError(f"{problem}, and downloading is turned off. {remedy}; {NEEDS_NO_FILES}")
