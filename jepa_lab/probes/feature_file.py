"""Features in a file that is mapped into memory, for data whose features do not fit there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from jepa_lab.tracking.atomic import explained_writes

_CHUNK_ROWS = 1 << 14


@contextlib.contextmanager
def stored_features(batches: Iterable[Tensor], folder: Path) -> Iterator[np.ndarray]:
    """Write features batch by batch and map them, [n, D'] float32, read-only.

    Single precision: features of two images can differ by a thousandth of their size, and float16 rounds at two
    thousandths. The file has no name, so nothing is left of it, however the process ends.

    Args:
        batches: [b, D'] float32 on the CPU, at least one.
        folder: on a disk with room for them; made where it is missing.
    Raises:
        RunStopped: if the disk is full. RunFolderError: if the folder may not be written.
    """
    with contextlib.ExitStack() as stack:
        with explained_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            rows, width = 0, 0
            # Written rather than assigned through the map: a full disk would then be a fatal signal.
            for batch in batches:
                file.write(batch.contiguous().numpy().data)
                rows, width = rows + len(batch), batch.shape[1]
            file.flush()
        yield np.memmap(file, dtype=np.float32, mode="r", shape=(rows, width))


def column_statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column in double precision, [D'] both, a part of the rows at a time."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), _CHUNK_ROWS):
        total += features[start : start + _CHUNK_ROWS].sum(axis=0, dtype=np.float64)
    mean = total / len(features)
    squares = np.zeros(features.shape[1])
    for start in range(0, len(features), _CHUNK_ROWS):
        squares += np.square(features[start : start + _CHUNK_ROWS] - mean).sum(axis=0)
    return mean, np.sqrt(squares / len(features))
