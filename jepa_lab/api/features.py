"""`jepa_lab.features`: the features of a folder of images in one file, in bounded memory, resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

import jepa_lab.feature_files.formats  # noqa: F401  (registers them)
from jepa_lab.api.encoder import Encoder, load_encoder
from jepa_lab.api.errors import explained_errors
from jepa_lab.api.inputs import check_choice
from jepa_lab.composition.stopping import interruption
from jepa_lab.config.loading import load_plugins
from jepa_lab.data.folders.scan import as_text, contents_below, counted, endings
from jepa_lab.errors import ConfigError, DataError, RunStopped
from jepa_lab.feature_files.formats.base import FeatureTable, format_of
from jepa_lab.feature_files.parts import FeatureParts, ImageFile, PartRecord, Skipped
from jepa_lab.interruption import StopSignals
from jepa_lab.tracking.atomic import explained_writes, sync_folder
from jepa_lab.training.devices import inference_device
from jepa_lab.training.progress import clock
from jepa_lab.weights.plain import describe

PART_BYTES = 32 * 2**20
PART_IMAGES = 1024
_REMEDY = "replace the file, remove it from the folder, or leave such files out with --on-bad-image=skip"
_SAY_EVERY_SECONDS = 10.0
OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True)
class FeatureFile:
    """A file of features.

    Attributes:
        shape: (n, D), or (n, N, D) of patches.
        skipped: files that are no images, with `on_bad_image="skip"`.
        notes: sentences about the folder.
    """

    path: Path
    shape: tuple[int, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def features(
    encoder: str | os.PathLike[str] | Encoder,
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    patches: bool = False,
    batch_size: int = 64,
    device: str | None = None,
    on_bad_image: OnBadImage = "error",
    say: Callable[[str], None] = print,
) -> FeatureFile:
    """Encode every image below a folder, and write paths and features into one file.

    Memory does not grow with the number of images. While it is made, the file is `OUT.parts/`; after a kill the same
    call resumes there, and under its own name the file is always whole.

    Args:
        encoder: from `load_encoder`, or a source as there.
        images: folder; images at any depth, of any size, in the order of their paths.
        out: file to write, which must not exist; `.parquet`, `.npz` or `.safetensors` says the format.
        patches: features of every patch, [n, N, D], instead of their average, [n, D].
        batch_size: images in one pass; it changes speed and memory, and rounding alone of the features.
        device: such as `cuda`; by default a GPU where there is one.
        on_bad_image: `skip` leaves files out that are no images, and names them in the result and the file.
        say: is told how far it has come.
    Raises:
        ConfigError: the file exists, or its ending is unknown. DataError: there are no images, or one cannot be read.
        RunInterrupted: Ctrl-C or SIGTERM; the same call resumes.
    """
    check_choice("on_bad_image", on_bad_image, get_args(OnBadImage))
    with explained_errors(features):
        load_plugins([])  # a package may bring a format
        target = Path(out)
        form = format_of(target)
        if os.path.lexists(target):
            raise ConfigError(f"{target} already exists; remove it, or write to another file")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        if not isinstance(encoder, Encoder):
            encoder = load_encoder(encoder)
        encoder.to(inference_device(device, "device"))
        files, notes = _listed(Path(images))
        work = _Extraction(encoder, Path(images), files, patches, batch_size, on_bad_image, say)
        parts = FeatureParts(target)
        with parts.held(work.plan()):
            records = work.complete(parts)
            skipped = tuple(each for record in records for each in record.skipped)
            paths = [path for record in records for path in record.paths]
            if not paths:
                raise DataError(
                    f"none of the {len(files)} files in {images} can be read, such as: {skipped[0].problem}"
                )
            shape = (len(paths), *work.row_shape)
            description = json.dumps(work.plan() | {"skipped": [asdict(each) for each in skipped]}, ensure_ascii=False)
            table = FeatureTable(paths, shape, description, parts.read(records))
            _write_whole(target, lambda path: form.write(table, path))
        parts.remove()
        return FeatureFile(target, shape, skipped, tuple(notes))


@dataclass(frozen=True)
class _Listed:
    """A file below the folder."""

    file: Path
    record: ImageFile


def _listed(folder: Path) -> tuple[list[_Listed], list[str]]:
    """The images below a folder, and sentences about what else is there.

    Raises:
        DataError: there are none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of the images")
    found = contents_below(folder)
    notes = []
    if found.unread:
        notes.append(f"formats that are not read are left out: {counted(endings(found.unread))}; convert them to JPEG")
    if not found.images:
        raise DataError(
            f"there are no images in {folder}{''.join(f' ({note})' for note in notes)}; give another folder"
        )
    listed = []
    for file in found.images:
        status = file.stat()
        name = as_text(file.relative_to(folder).as_posix())
        listed.append(_Listed(file, ImageFile(name, status.st_size, status.st_mtime_ns)))
    return listed, notes


class _Extraction:
    """Images go in, parts come out; see `features`."""

    def __init__(
        self,
        encoder: Encoder,
        folder: Path,
        files: Sequence[_Listed],
        patches: bool,
        batch_size: int,
        on_bad_image: OnBadImage,
        say: Callable[[str], None],
    ) -> None:
        self.encoder, self.folder, self.files, self.patches = encoder, folder, files, patches
        self.batch_size, self.on_bad_image, self.say = batch_size, on_bad_image, say
        self.row_shape = (encoder.num_patches, encoder.num_features) if patches else (encoder.num_features,)
        self._started = self._said = time.monotonic()

    def plan(self) -> dict[str, Any]:
        """What decides about the features, as JSON values."""
        parts = self.encoder.parts()
        digest = hashlib.sha256(json.dumps(describe(parts)).encode())
        for name, tensor in sorted(self.encoder.vit.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return {
            "source": self.encoder.source,
            "weights_sha256": digest.hexdigest(),
            "images": str(self.folder.resolve()),
            "image_size": list(self.encoder.image_size),
            "num_features": self.encoder.num_features,
            "patches": self.patches,
        }

    def complete(self, parts: FeatureParts) -> list[PartRecord]:
        """Make all parts that are not there yet.

        Raises:
            DataError: a file is no image, unless these are skipped. RunInterrupted: a signal; the parts stay.
        """
        records = parts.done([each.record for each in self.files])
        begun = done = sum(len(record.files) for record in records)
        if begun:
            self.say(f"resuming after {begun:,} of {len(self.files):,} images")
        rows = max(1, min(PART_IMAGES, PART_BYTES // (4 * int(np.prod(self.row_shape)))))
        batch = min(self.batch_size, rows)
        per_part = rows - rows % batch
        try:
            with StopSignals(), ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
                for part in _batches(self.files[begun:], per_part):
                    record, found = self._part(part, batch, pool)
                    parts.add(len(records), record, found)
                    records.append(record)
                    done += len(record.files)
                    self._tell(done, done - begun)
        except KeyboardInterrupt as error:
            where = f"after {done:,} of {len(self.files):,} images; run the same command again to resume"
            raise interruption(error, where) from None
        return records

    def _part(self, files: Sequence[_Listed], batch: int, pool: ThreadPoolExecutor) -> tuple[PartRecord, np.ndarray]:
        """A part's record, and its features."""
        found: list[np.ndarray] = []
        skipped: list[Skipped] = []
        for start in range(0, len(files), batch):
            some = files[start : start + batch]
            decoded = list(pool.map(self._decoded, some))
            for listed, each in zip(some, decoded, strict=True):
                if isinstance(each, DataError):
                    if self.on_bad_image == "error":
                        raise DataError(each.rule, remedy=_REMEDY)
                    skipped.append(Skipped(listed.record.path, each.rule))
            squares = [each for each in decoded if isinstance(each, Tensor)]
            if squares:
                found.append(self._encoded(torch.stack(squares)))
        empty = np.zeros((0, *self.row_shape), np.float32)
        record = PartRecord(tuple(each.record for each in files), tuple(skipped))
        return record, np.concatenate(found) if found else empty

    def _decoded(self, listed: _Listed) -> Tensor | DataError:
        try:
            return self.encoder.form.square_of_file(listed.file)
        except DataError as error:
            return error

    @torch.inference_mode()
    def _encoded(self, squares: Tensor) -> np.ndarray:
        """Features of uint8 squares [b, C, H, W].

        Raises:
            RunStopped: they are not finite.
        """
        tokens = self.encoder.encode_patches(squares).float()
        rows = (tokens if self.patches else tokens.mean(dim=1)).cpu()
        if not torch.isfinite(rows).all():
            raise RunStopped(f"the features of {self.encoder.source} are not finite; its weights are of no use")
        return rows.numpy()

    def _tell(self, done: int, since_start: int) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY_SECONDS or done == len(self.files):  # the end is told by the caller
            return
        self._said = now
        speed = since_start / (now - self._started)
        left = clock((len(self.files) - done) / speed)
        self.say(f"{done:,} of {len(self.files):,} images  {speed:,.0f} images/s  {left} left")


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under another name first, so that under its own it is never half there."""
    scratch = path.with_name(f"{path.name}.parts") / f"whole{path.suffix}"
    with explained_writes(path):
        write(scratch)
        with open(scratch, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
        sync_folder(path.parent)


def _batches(files: Sequence[_Listed], size: int) -> Iterator[Sequence[_Listed]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]
