"""The parts of a file of features while it is made: `OUT.parts/`, from which a killed extraction is resumed.

```
plan.json            what is extracted: the encoder's weights and the settings, as digests and values
000000.safetensors   features of the first images, and which files these were
```
A part counts as long as the files that it is of are the first ones of the folder, unchanged in size and time. What
follows the first part that does not is made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.atomic import explained_writes, write_bytes_atomically, write_json_atomically
from jepa_lab.tracking.locks import FileLock

_PLAN, _ENTRY = "plan.json", "jepa_lab"


@dataclass(frozen=True)
class ImageFile:
    """A file to extract features of.

    Attributes:
        path: relative to the folder, with slashes, printable. size, modified: in bytes and nanoseconds.
    """

    path: str
    size: int
    modified: int


@dataclass(frozen=True)
class Skipped:
    """A file that is not an image, and why."""

    path: str
    problem: str


@dataclass(frozen=True)
class PartRecord:
    """What a part says about itself.

    Attributes:
        files: that it is of, in order; those of `skipped` have no features.
    """

    files: tuple[ImageFile, ...]
    skipped: tuple[Skipped, ...]

    @property
    def paths(self) -> list[str]:
        """Of the images that have features."""
        without = {each.path for each in self.skipped}
        return [each.path for each in self.files if each.path not in without]


class FeatureParts:
    """The folder beside the file that is being made.

    Args:
        out: the file.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")

    @contextmanager
    def held(self, plan: dict[str, Any]) -> Iterator[None]:
        """Make the folder, or take it up, as the only process that does.

        Args:
            plan: what is extracted, as JSON values.
        Raises:
            ConfigError: it is the beginning of something else. RunFolderError: it cannot be written, or is in use.
        """
        with explained_writes(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock", f"the extraction into {self.out}") as lock:
            lock.acquire(0)
            self._refuse_other(plan)
            yield

    def _refuse_other(self, plan: dict[str, Any]) -> None:
        file = self.folder / _PLAN
        if not file.exists() or not self._files():
            write_json_atomically(file, plan)
            return
        known = json.loads(file.read_text(encoding="utf-8"))
        different = [key for key in {**known, **plan} if known.get(key) != plan.get(key)]
        if different:
            details = ", ".join(f"{key} ({known.get(key)!r} -> {plan.get(key)!r})" for key in different)
            raise ConfigError(
                f"{self.folder} holds the beginning of another extraction: {details}; delete the folder to start over, "
                "or give another --out"
            )

    def done(self, files: Sequence[ImageFile]) -> list[PartRecord]:
        """The parts that need not be made again; others after them are removed."""
        records: list[PartRecord] = []
        start = 0
        for number, path in enumerate(self._files()):
            record = _read_record(path) if path == self._path(number) else None
            if record is None or tuple(files[start : start + len(record.files)]) != record.files:
                break
            records.append(record)
            start += len(record.files)
        for path in self._files()[len(records) :]:
            path.unlink()
        return records

    def add(self, number: int, record: PartRecord, features: np.ndarray) -> None:
        """Write a part; a crash at any moment leaves it whole or not there."""
        entry = {
            "files": [[each.path, each.size, each.modified] for each in record.files],
            "skipped": [[each.path, each.problem] for each in record.skipped],
        }
        content = save({"features": features}, {_ENTRY: json.dumps(entry)})
        write_bytes_atomically(self._path(number), content)

    def read(self, records: Sequence[PartRecord]) -> ReadParts:
        """The features of all parts, one part in memory at a time."""
        return ReadParts(tuple((self._path(number), record) for number, record in enumerate(records)))

    def remove(self) -> None:
        """Delete the folder; the file is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.safetensors"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))


@dataclass(frozen=True)
class ReadParts:
    """Parts on the disk; a sequence that may be read again and again."""

    parts: tuple[tuple[Path, PartRecord], ...]

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray]]:
        for path, record in self.parts:
            with safe_open(path, "numpy") as file:
                features = file.get_tensor("features")
            if len(features):
                yield record.paths, features


def _read_record(path: Path) -> PartRecord | None:
    """What a part says about itself; None for one that is damaged."""
    try:
        with safe_open(path, "numpy") as file:
            entry = json.loads((file.metadata() or {})[_ENTRY])
            file.get_slice("features")
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    files = tuple(ImageFile(*each) for each in entry["files"])
    return PartRecord(files, tuple(Skipped(*each) for each in entry["skipped"]))
