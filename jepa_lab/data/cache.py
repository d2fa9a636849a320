"""Decoded images in one file on disk: files are decoded once, and mapped into memory by every later run.

```
<cache>/<key>/pixels.bin     [n, 3, S, S] uint8: training, test, then validation images; see `MappedPixels`
<cache>/<key>/cache.json     what they are of, with their SHA-256
<cache>/<key>.lock           held while the entry is written or opened
<cache>/<key>.tmp, .old      left by a writer that was killed; removed by the next one
```
The key names the folder of the images, the data set and how it is decoded; the fingerprint in `cache.json` says
whether the source files are still those that were decoded.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jepa_lab.data.base import ImageFileSet, SkippedImage
from jepa_lab.data.decode import undecodable
from jepa_lab.data.image_files import (
    OnBadImage,
    digest_of,
    file_pixels,
    raise_first,
    skipped_images,
    without_images,
)
from jepa_lab.data.images import READ_AT_ONCE, BadImage, LazyImages
from jepa_lab.data.long_work import LongWork
from jepa_lab.data.mapped import SIZE_TYPE, MappedPixels, file_bytes
from jepa_lab.data.survey import DECODE_RULES_VERSION, fingerprint_of, without_skipped
from jepa_lab.data.workers import Workers, in_order
from jepa_lab.errors import ConfigError, Key, RunFolderError, RunStopped
from jepa_lab.tracking.atomic import explained_writes, sync_folder
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.records import read_record, record_as, write_record

VARIABLE = "JEPA_LAB_CACHE"
KIND = "cache"
VERSION = 2
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_folder() -> Path:
    """$JEPA_LAB_CACHE, else $XDG_CACHE_HOME/jepa-lab, else ~/.cache/jepa-lab; it may not exist yet.

    Raises:
        ConfigError: if there is no home folder.
    """
    try:
        if os.environ.get(VARIABLE):
            return Path(os.environ[VARIABLE]).expanduser().absolute()
        if os.environ.get("XDG_CACHE_HOME"):
            return Path(os.environ["XDG_CACHE_HOME"]).absolute() / "jepa-lab"
        return Path.home() / ".cache" / "jepa-lab"
    except RuntimeError:
        raise ConfigError(
            Key("cache"),
            f"=true needs a folder, and there is no home folder here; set {VARIABLE}=FOLDER, or ",
            Key("cache"),
            "=false",
        ) from None


@dataclass(frozen=True)
class CachedImages:
    """An entry of the cache, verified.

    Attributes:
        pixels: training, test, then validation images.
        files: the data set without the files that were left out.
        digest: as `data_digest` of the decoded images.
        skipped: files that were left out.
        note: why an older entry was not used, in words.
    """

    pixels: MappedPixels
    files: ImageFileSet
    digest: str
    skipped: tuple[SkippedImage, ...]
    note: str | None


@dataclass(frozen=True)
class _Record:
    """The content of `cache.json`.

    Attributes:
        fingerprint: of the source files. source: their folder, for people.
        shape: of the pixels, n, C, H, W. has_sizes: whether sizes follow them. pixels_sha256: of both.
        digest, skipped: see `CachedImages`.
    """

    fingerprint: str
    source: str
    shape: tuple[int, int, int, int]
    has_sizes: bool
    class_names: tuple[str, ...]
    pixels_sha256: str
    digest: str
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class ImageCache:
    """The entry of one data set at one size.

    Args:
        folder: of the cache.
        name: of the data set, with its parameters.
        files: the files as they are now.
        side: height and width that pictures are stored at.
        workers: who decodes and reads.
    """

    folder: Path
    name: str
    files: ImageFileSet
    side: int
    workers: Workers
    on_bad_image: OnBadImage

    @property
    def entry(self) -> Path:
        """The folder of the entry."""
        root = self.files.root or Path(os.path.commonpath(self.files.train.files))
        named = [str(root.resolve()), self.name, str(self.side), str(DECODE_RULES_VERSION)]
        return self.folder / hashlib.sha256("\0".join(named).encode(errors="surrogateescape")).hexdigest()[:32]

    def open(self) -> CachedImages:
        """Map the entry, made or made again if it is missing, damaged or older than the files.

        Processes take turns: the second one finds what the first one made.

        Raises:
            DataError: a file cannot be decoded. RunStopped: the disk is full, or a worker died.
            RunFolderError: the folder may not be written.
        """
        with explained_writes(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.entry.with_suffix(".lock"), f"the image cache {self.entry}") as lock:
            lock.acquire(timeout_seconds=math.inf)
            self._remove_leftovers()
            fingerprint = fingerprint_of(self.files, self.side)
            note = None
            if self.entry.exists():
                try:
                    return self._opened(fingerprint, None)
                except _StaleEntry as error:
                    note = f"the image cache was made again: {error}"
                except RunFolderError as error:
                    note = f"the image cache was made again: {error.rule}"
            self._write(fingerprint)
            try:
                return self._opened(fingerprint, note)
            except _StaleEntry as error:
                raise RunStopped(
                    f"{error}, although it was written a moment ago; check the disk, or set "
                    f"{VARIABLE} to a folder on another one"
                ) from error

    def _opened(self, fingerprint: str, note: str | None) -> CachedImages:
        """Map the entry if it can be trusted.

        Raises:
            _StaleEntry, RunFolderError: it cannot.
        """
        file = self.entry / "cache.json"
        record = record_as(_Record, read_record(file, KIND, VERSION), file)
        if record.fingerprint != fingerprint:
            raise _StaleEntry(f"files of {self.files.source} were added, removed or changed since {self.entry}")
        if record.skipped and self.on_bad_image == "error":  # it was made by a run that skips
            raise undecodable(record.skipped[0].problem)
        files, path = without_skipped(self.files, record.skipped), self.entry / "pixels.bin"
        source = file_pixels(files, self.side)
        if (record.shape, record.has_sizes) != (source.shape, source.has_sizes):
            raise _StaleEntry(f"{file} is damaged: shape: it is not that of the images")
        if not path.is_file() or path.stat().st_size != file_bytes(record.shape, record.has_sizes):
            raise _StaleEntry(f"{path} is damaged: it has another size than was written")
        pixels = MappedPixels(path, record.shape, record.has_sizes)
        if pixels.sha256() != record.pixels_sha256:
            raise _StaleEntry(f"{path} is damaged: its checksum does not match")
        return CachedImages(pixels, files, record.digest, record.skipped, note)

    def _write(self, fingerprint: str) -> None:
        """Decode into a temporary folder, which becomes the entry when it is complete and on the disk."""
        temporary = self.entry.with_suffix(".tmp")
        with self._explained():
            temporary.mkdir()
            try:
                record = self._decode(temporary / "pixels.bin")
                write_record(temporary / "cache.json", KIND, VERSION, {"fingerprint": fingerprint, **record})
                sync_folder(temporary)
                if self.entry.exists():
                    os.replace(self.entry, self.entry.with_suffix(".old"))
                os.replace(temporary, self.entry)
                sync_folder(self.folder)
            finally:
                self._remove_leftovers()

    def _decode(self, path: Path) -> dict[str, Any]:
        """Write the pixels of all good files.

        Returns:
            What `cache.json` says about them.
        """
        source = file_pixels(self.files, self.side)
        self._check_space(file_bytes(source.shape, source.has_sizes))
        sha, bad, sizes = hashlib.sha256(), list[BadImage](), list[bytes]()
        with path.open("wb") as file:
            blocks = torch.arange(source.shape[0]).split(READ_AT_ONCE)
            work = LongWork(f"decoding into {self.folder}", source.shape[0])
            for block in in_order(source.read, blocks, replace(self.workers, pin_memory=False)):
                work.add(len(block.images))
                raise_first(block.bad, self.on_bad_image)
                bad += block.bad
                content = block.images.numpy().data
                sha.update(content)
                file.write(content)
                if block.sizes is not None:
                    sizes.append(block.sizes.numpy().astype(SIZE_TYPE).tobytes())
            sha.update(b"".join(sizes))
            file.write(b"".join(sizes))
            file.flush()
            os.fsync(file.fileno())
        left = without_images(self.files, bad)
        shape = (source.shape[0] - len(bad), *source.shape[1:])
        pixels = MappedPixels(path, shape, source.has_sizes)
        images = LazyImages(pixels, Workers(0), torch.arange(shape[0]))
        return {
            "source": self.files.source,
            "shape": shape,
            "has_sizes": source.has_sizes,
            "class_names": self.files.class_names,
            "pixels_sha256": sha.hexdigest(),
            "digest": digest_of(left, images),
            "skipped": [list(image) for image in skipped_images(self.files, bad)],
        }

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise self._full(f"it takes {needed / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        with explained_writes(self.entry):
            try:
                yield
            except OSError as error:
                if error.errno in _FULL:
                    raise self._full(str(error.strerror)) from error
                raise

    def _full(self, reason: str) -> RunStopped:
        return RunStopped(
            f"no space left for the image cache {self.entry}: {reason}; free space there (entries of other data sets "
            f"may be deleted), set {VARIABLE} to a folder on another disk, or ",
            Key("cache"),
            "=false",
        )

    def _remove_leftovers(self) -> None:
        """What writers left, or what else is in the way: safe, because this process holds the lock."""
        for suffix in (".tmp", ".old"):
            left = self.entry.with_suffix(suffix)
            with explained_writes(left):
                if left.is_symlink() or left.is_file():
                    left.unlink()
                elif left.exists():
                    shutil.rmtree(left)


class _StaleEntry(Exception):
    """An entry that must be made again; the text says why."""
