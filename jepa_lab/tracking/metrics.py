"""`metrics.jsonl`: a JSON row for each logged step; it can be cut back to a checkpoint and be followed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import explained_writes
from jepa_lab.tracking.records import named_float

if TYPE_CHECKING:
    import pandas as pd


FORMAT_VERSION = 1


@dataclass(frozen=True)
class MetricsRow:
    """What was measured at one step.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the training images done; a fraction within an epoch.
        time: Unix seconds.
        metrics: value by name, such as "train/loss"; None where there was nothing to measure.
    """

    step: int
    epoch: float
    time: float
    metrics: dict[str, float | None]


class MetricsWriter:
    """Appends rows to a metrics file; every row reaches the operating system at once, the disk on `sync`.

    Args:
        path: the file; made if it is missing.
        cursor: byte position returned by `sync` and kept in a checkpoint. The file is cut back to it, so that
            rows written after the checkpoint are dropped. None keeps all rows. A torn last row is always
            dropped.
    Raises:
        RunFolderError: if the file is shorter than `cursor`, or `cursor` is not the end of a row.
    """

    def __init__(self, path: Path, cursor: int | None) -> None:
        self.path = path
        with explained_writes(path):
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._cut_back(cursor)
            self._last_step, self._names = -1, set[str]()
            self._sha256 = hashlib.sha256()
            for line, end in iter_lines(path):
                self._sha256.update(line)
                row = parse_row(line, path, end)
                self._check_order(row.step, set(row.metrics))
        except BaseException:
            self._file.close()
            raise

    def append(self, step: int, epoch: float, metrics: Mapping[str, float | None]) -> None:
        """Write one row.

        Args:
            step: at least the step of the row before; a metric comes once a step (mirrors rely on both).
            metrics: numbers by name; NaN and infinities are kept, as the strings "nan", "inf" and "-inf".
        Raises:
            RunStopped: if the disk is full; the file then ends in a torn row, which readers drop.
        """
        self._check_order(step, set(metrics))
        values = {name: None if value is None else named_float(float(value)) for name, value in metrics.items()}
        row = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "epoch": float(epoch),
            "time": time.time(),
            "metrics": values,
        }
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
        with explained_writes(self.path):
            written = 0
            while written < len(line):  # an unbuffered write may be a partial one
                written += self._file.write(line[written:]) or 0
        self._sha256.update(line)

    def sync(self) -> int:
        """Make the rows survive a power cut, and return the cursor behind the last one, in bytes."""
        with explained_writes(self.path):
            os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all rows."""
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut_back(self, cursor: int | None) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if cursor is None:
            cursor = end_of_rows(self.path)
        if cursor > size:
            raise RunFolderError(
                f"{self.path} has {size} bytes, the checkpoint counts {cursor}: rows were lost; "
                "restore the file from a copy, or start a new run"
            )
        if cursor > 0 and os.pread(self._file.fileno(), 1, cursor - 1) != b"\n":
            raise RunFolderError(
                f"{self.path} does not end a row at byte {cursor}, where the checkpoint was written: "
                "the file was changed; restore it from a copy, or start a new run"
            )
        if cursor < size:
            with explained_writes(self.path):
                self._file.truncate(cursor)

    def _check_order(self, step: int, names: set[str]) -> None:
        if step < self._last_step:
            raise ValueError(f"metrics of step {step} come after those of step {self._last_step}")
        if step > self._last_step:
            self._last_step, self._names = step, set()
        if self._names & names:
            raise ValueError(f"metrics {sorted(self._names & names)} are written twice at step {step}")
        self._names |= names


def damage_before(path: Path, cursor: int, sha256: str) -> str | None:
    """What is wrong with the first `cursor` bytes, whose digest a checkpoint has kept; None if nothing is."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if len(content) < cursor:
        return f"{path} has {len(content)} of the {cursor} bytes that it had then"
    if hashlib.sha256(content[:cursor]).hexdigest() != sha256:
        return f"{path} is not what it was then: its rows have another SHA-256"
    return None


def end_of_rows(path: Path) -> int:
    """Byte position behind the last complete row; 0 for a missing file."""
    if not path.exists():
        return 0
    return path.read_bytes().rfind(b"\n") + 1


def iter_lines(path: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The complete lines from byte `start` on, each with the byte position behind it.

    A last line without its newline is torn, or still being written, and is left out.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise RunFolderError(f"{path} is not a file; restore it from a copy")
    with open(path, "rb") as file:
        position = file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            yield line, position


def parse_row(line: bytes, path: Path, end: int) -> MetricsRow:
    """The row in a line of `path` that ends at byte `end`.

    Raises:
        RunFolderError: if the line is damaged; names its place.
    """
    try:
        row = json.loads(line.decode("utf-8"))
        version = row["format_version"]
        if version != FORMAT_VERSION:
            raise ValueError(f"it has format version {version}, this jepa-lab reads {FORMAT_VERSION}")
        values = {str(name): None if value is None else float(value) for name, value in row["metrics"].items()}
        return MetricsRow(int(row["step"]), float(row["epoch"]), float(row["time"]), values)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunFolderError(
            f"{path}: the row at byte {end - len(line)} is damaged ({error}); restore the file from a copy"
        ) from error


def read_metrics(path: Path) -> list[MetricsRow]:
    """All complete rows of a metrics file; empty if it is missing, RunFolderError if a row is damaged."""
    return [parse_row(line, path, end) for line, end in iter_lines(path)]


def metrics_frame(path: Path) -> pd.DataFrame:
    """The rows in long form: columns step, epoch, time, name, value; one line a metric, nulls left out."""
    import pandas as pd

    long = [
        (row.step, row.epoch, row.time, name, value)
        for row in read_metrics(path)
        for name, value in row.metrics.items()
        if value is not None
    ]
    return pd.DataFrame(long, columns=["step", "epoch", "time", "name", "value"])
