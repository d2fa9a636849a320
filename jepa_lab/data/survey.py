"""One look at every file before a streaming run: which are broken, what the content is, how channels are distributed.

A resident run learns this from the images in memory. A streaming run decodes each file once for it, by the same
workers, and keeps the findings in its run folder (`data.json`), so that a resumed run need not look again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jepa_lab.data.base import ImageFiles, ImageFileSet, SkippedImage
from jepa_lab.data.image_files import (
    FilePixels,
    OnBadImage,
    file_pixels,
    label_tensor,
    raise_first,
    relative_names,
    skipped_images,
    without_images,
)
from jepa_lab.data.images import READ_AT_ONCE, BadImage, Pictures
from jepa_lab.data.long_work import LongWork
from jepa_lab.data.pixels import VALIDATION, ContentDigest
from jepa_lab.data.splits import add_to_histogram
from jepa_lab.data.workers import Workers, in_order
from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.records import read_record, record_as, write_record

KIND = "data"
VERSION = 1
DECODE_RULES_VERSION = 3
"""Raised when `decode_picture` or the resizing gives other pixels: what was stored under older rules is then stale."""

TrainingPart = Callable[[Tensor | None, int], Tensor]
"""Which training images pretraining sees, from the labels [n] and n: their indices [m]."""


@dataclass(frozen=True)
class Survey:
    """What a look at all files found.

    Attributes:
        fingerprint: of the files that were looked at, see `fingerprint_of`.
        digest: as `data_digest` of the decoded images.
        skipped: files that were left out.
        histogram: [C, 256] counts of the pixels that pretraining sees; None where nobody asked for them.
    """

    fingerprint: str
    digest: str
    skipped: tuple[SkippedImage, ...]
    histogram: tuple[tuple[int, ...], ...] | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "fingerprint": self.fingerprint,
            "digest": self.digest,
            "skipped": [list(image) for image in self.skipped],
            "histogram": self.histogram,
        }

    def __post_init__(self) -> None:
        if self.histogram is not None and any(len(row) != 256 for row in self.histogram):
            raise ValueError("the histogram must count 256 values of each channel")


@dataclass(frozen=True)
class _Record:
    """The content of `data.json`: surveys by the section of the pipeline."""

    surveys: dict[str, Survey]


def fingerprint_of(files: ImageFileSet, side: int) -> str:
    """Name the files without opening them: their names, sizes, times of change and labels, and how they are decoded.

    A file that is gone, or in a folder that may not be entered, only changes it; decoding it is what fails.
    """
    sha = hashlib.sha256()
    settings = [DECODE_RULES_VERSION, side, files.native_size, files.class_names, len(files.train.files)]
    if files.validation is not None:
        settings.append(len(files.validation.files))
    sha.update(json.dumps(settings).encode())
    names = iter(relative_names(files))
    for part in files.parts():
        for position, file in enumerate(part.files):
            try:
                status = file.stat()
                # The second time is set by the system alone: it tells of new content behind an old date.
                state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            except OSError:
                state = (-1, -1, -1)
            label = None if part.labels is None else part.labels[position]
            sha.update(json.dumps([next(names), *state, label]).encode())
    return sha.hexdigest()


def survey_files(
    files: ImageFileSet,
    side: int,
    workers: Workers,
    on_bad_image: OnBadImage,
    training_part: TrainingPart | None,
) -> Survey:
    """Decode every file once.

    With bad files that are skipped it takes a second look at the others: who is left out changes which images are
    training and which are validation.

    Args:
        side: height and width that pictures are stored at.
        training_part: None where the channel statistics are not needed.
    Raises:
        DataError: a file cannot be decoded, or skipping leaves nothing of a class. RunStopped: a worker died.
    """
    fingerprint = fingerprint_of(files, side)
    skipped: tuple[SkippedImage, ...] = ()
    while True:
        found = _look_at_all(files, file_pixels(files, side), workers, on_bad_image, training_part)
        if not found.bad:
            histogram = None if found.histogram is None else tuple(map(tuple, found.histogram.tolist()))
            return Survey(fingerprint, found.digest, skipped, histogram)
        skipped += skipped_images(files, found.bad)
        files = without_images(files, found.bad)


def without_skipped(files: ImageFileSet, skipped: Sequence[SkippedImage]) -> ImageFileSet:
    """The data set that a survey was of in the end."""
    problems = dict(skipped)
    names = relative_names(files) if problems else []
    bad = [BadImage(place, problems[name]) for place, name in enumerate(names) if name in problems]
    return without_images(files, bad)


class _Look(NamedTuple):
    """What one look found; the digest and the histogram count only if nothing was bad."""

    bad: list[BadImage]
    digest: str
    histogram: Tensor | None


def _look_at_all(
    files: ImageFileSet,
    pixels: FilePixels,
    workers: Workers,
    on_bad_image: OnBadImage,
    training_part: TrainingPart | None,
) -> _Look:
    num_images, channels, *size = pixels.shape
    num_train = len(files.train.files)
    seen = torch.zeros(num_images, dtype=torch.bool)
    if training_part is not None:
        seen[training_part(label_tensor(files.train), num_train)] = True
    histogram = torch.zeros(channels, 256, dtype=torch.int64)
    digest, bad = ContentDigest(), list[BadImage]()
    work = LongWork("looking at every image once", num_images)
    pieces = _pieces(files)
    blocks = in_order(pixels.read, [piece.indices for piece in pieces], replace(workers, pin_memory=False))
    for piece, block in zip(pieces, blocks, strict=True):
        work.add(len(piece.indices))
        raise_first(block.bad, on_bad_image)
        bad += block.bad
        if bad:
            continue  # only to find the other bad ones
        if piece.is_first:
            name = VALIDATION if piece.part is files.validation else ""
            digest.begin((len(piece.part.files), channels, *size), name)
        digest.pictures(Pictures(block.images, block.sizes))
        add_to_histogram(histogram, block.images[seen[piece.indices]])
        if piece.is_last:
            digest.labels(label_tensor(piece.part))
    return _Look(bad, digest.hex(files.class_names), None if training_part is None else histogram)


class _Piece(NamedTuple):
    """Images of one part that are read at once; `is_first` and `is_last` of that part."""

    part: ImageFiles
    indices: Tensor
    is_first: bool
    is_last: bool


def _pieces(files: ImageFileSet) -> list[_Piece]:
    """All images in order, in pieces that do not cross from one part to the next."""
    start, pieces = 0, []
    for part in files.parts():
        indices = torch.arange(start, start + len(part.files)).split(READ_AT_ONCE)
        start += len(part.files)
        last = len(indices) - 1
        pieces += [_Piece(part, each, number == 0, number == last) for number, each in enumerate(indices)]
    return pieces


def save_surveys(path: Path, surveys: dict[str, Survey]) -> None:
    """Write `data.json`; nothing without surveys.

    Args:
        surveys: by the section of the pipeline, "data" or "probe.data".
    Raises:
        RunStopped: the disk is full.
    """
    if surveys:
        write_record(path, KIND, VERSION, {"surveys": {name: survey.to_dict() for name, survey in surveys.items()}})


def load_surveys(path: Path) -> tuple[dict[str, Survey], str | None]:
    """Read `data.json`.

    Returns:
        The surveys, none if there is no file; and a sentence if there is one that cannot be trusted.
    """
    if not path.exists():
        return {}, None
    try:
        return record_as(_Record, read_record(path, KIND, VERSION), path).surveys, None
    except RunFolderError as error:
        return {}, f"{error.rule}; it is not used, and every image is looked at again"
