"""Decoded images in a file that is mapped into memory."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.images import Block

SIZE_TYPE = "<i4"
_CHUNK_BYTES = 1 << 24


def file_bytes(shape: tuple[int, int, int, int], has_sizes: bool) -> int:
    """Length of a file of images; arguments as for `MappedPixels`."""
    return math.prod(shape) + (2 * np.dtype(SIZE_TYPE).itemsize * shape[0] if has_sizes else 0)


class MappedPixels:
    """Decoded images in a file that is mapped into memory.

    Args:
        path: [n, C, H, W] uint8; then, for whole pictures, their heights and widths, [n, 2] int32, little-endian.
        shape: n, C, H, W.
        has_sizes: whether these follow.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int], has_sizes: bool) -> None:
        self._path, self._shape, self.has_sizes = path, shape, has_sizes
        self._file = np.memmap(path, dtype=np.uint8, mode="r", shape=(file_bytes(shape, has_sizes),))
        num_pixels = math.prod(shape)
        self._map = self._file[:num_pixels].reshape(shape)
        # Behind the pixels they need not be aligned; they are few, and are copied.
        self._sizes = np.frombuffer(self._file[num_pixels:].tobytes(), SIZE_TYPE).reshape(-1, 2).astype(np.int32)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, C, H, W."""
        return self._shape

    def read(self, indices: Tensor) -> Block:
        """Copy the images at `indices`, [m] int64."""
        sizes = torch.from_numpy(self._sizes[indices.numpy()]) if self.has_sizes else None
        return Block(torch.from_numpy(self._map[indices.numpy()]), (), sizes)

    def sha256(self) -> str:
        """Of the whole file."""
        sha, flat = hashlib.sha256(), self._file
        for start in range(0, len(flat), _CHUNK_BYTES):
            sha.update(flat[start : start + _CHUNK_BYTES].data)
        return sha.hexdigest()

    def __getstate__(self) -> tuple[Path, tuple[int, int, int, int], bool]:
        # A spawned worker maps the file itself, rather than receive its content.
        return self._path, self._shape, self.has_sizes

    def __setstate__(self, state: tuple[Path, tuple[int, int, int, int], bool]) -> None:
        MappedPixels.__init__(self, *state)
