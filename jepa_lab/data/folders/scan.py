"""Lists folders: the image files below one, at any depth, and the pictures whose format is not read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.errors import DataError, printable

IMAGE_EXTENSIONS = (
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)

_PHONES = (".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl")
_CAMERAS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
_PROGRAMS = (".dcm", ".eps", ".exr", ".hdr", ".psd", ".svg", ".tga", ".xcf")
UNREAD_EXTENSIONS = (*_PHONES, *_CAMERAS, *_PROGRAMS)
"""Endings of pictures that somebody may believe to be trained on. Anything else in a folder of images, such as lists
and notes, is nothing to speak of."""


@dataclass(frozen=True)
class Contents:
    """The pictures below a folder, in the order of their paths.

    Attributes:
        images: files that can be read.
        unread: files whose format is not read.
    """

    images: tuple[Path, ...]
    unread: tuple[Path, ...]


def contents_below(folder: Path, without: Sequence[Path] = ()) -> Contents:
    """Pictures at any depth; links are followed, since subsets are often made of them, and hidden names are skipped.

    Args:
        without: folders that are passed over.
    Raises:
        DataError: a folder cannot be listed or contains itself through a link, or an image is none.
    """
    images: list[Path] = []
    unread: list[Path] = []
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        current, above = waiting.pop()
        listed = entries(current)
        status = current.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise DataError(
                f"the folder {current} leads back to a folder that it is in, by a link; remove the link", keys=["root"]
            )
        for entry in listed:
            path = current / entry.name
            if entry.name.startswith("."):
                continue
            if is_folder(entry):
                if path not in without:
                    waiting.append((path, above | {identity}))
            elif is_image(entry.name):
                _check_is_file(entry)
                images.append(path)
            elif is_unread(entry.name):
                unread.append(path)
    return Contents(tuple(sorted(images)), tuple(sorted(unread)))


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name.

    Raises:
        DataError: if it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be listed ({error.strerror}); make it readable, or move it elsewhere",
            keys=["root"],
        ) from error


def folders_in(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted, without hidden ones.

    Raises:
        DataError: if it cannot be listed.
    """
    return tuple(entry.name for entry in entries(folder) if is_folder(entry) and not entry.name.startswith("."))


def images_in(folder: Path) -> tuple[str, ...]:
    """Names of the images directly in a folder, sorted.

    Raises:
        DataError: if it cannot be listed.
    """
    return tuple(entry.name for entry in entries(folder) if is_image(entry.name) and not is_folder(entry))


def is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a place that may not be entered
        return False


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_EXTENSIONS) and not name.startswith(".")


def is_unread(name: str) -> bool:
    return name.lower().endswith(UNREAD_EXTENSIONS) and not name.startswith(".")


def _check_is_file(entry: os.DirEntry[str]) -> None:
    """Anything else could block the reader forever; a link to nothing would be an image lost without a word."""
    if not os.path.isfile(entry.path) if entry.is_symlink() else not entry.is_file():
        what = "a link to nothing" if entry.is_symlink() else "neither a file nor a folder"
        raise DataError(f"{entry.path} has the name of an image, but is {what}; remove it", keys=["root"])


def endings(files: Iterable[Path]) -> Counter[str]:
    """How many files have each ending, in lower case; empty for a name without one."""
    return Counter(file.suffix.lower() for file in files)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden, for messages; links to folders are not followed."""
    for current, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(current, name) for name in sorted(names) if not name.startswith("."))


def counted(numbers: Counter[str]) -> str:
    """`500 .heic, 12 .dng`, the most frequent first, shortened."""
    named = [f"{count:,} {ending or 'without an ending'}" for ending, count in numbers.most_common()]
    return shortened(named, 5)


def shortened(words: Sequence[str], most: int = 8) -> str:
    """A list for a message: the first ones, and how many more there are."""
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most:,} more"


def as_text(name: str) -> str:
    r"""A name that can be printed and stored: bytes that are not UTF-8 are written as `\xe9`."""
    return printable(os.fsencode(name).decode("utf-8", "backslashreplace"))
