"""Decoded images in a file that is mapped into memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.images import Block

_CHUNK_BYTES = 1 << 24


class MappedPixels:
    """Decoded images in a file that is mapped into memory.

    Args:
        path: uint8 values, nothing else. shape: n, C, H, W.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        self._path, self._shape = path, shape
        self._map = np.memmap(path, dtype=np.uint8, mode="r", shape=shape)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, C, H, W."""
        return self._shape

    def read(self, indices: Tensor) -> Block:
        """Copy the images at `indices`, [m] int64."""
        return Block(torch.from_numpy(self._map[indices.numpy()]), ())

    def sha256(self) -> str:
        """Of all pixels."""
        sha, flat = hashlib.sha256(), self._map.reshape(-1)
        for start in range(0, len(flat), _CHUNK_BYTES):
            sha.update(flat[start : start + _CHUNK_BYTES].data)
        return sha.hexdigest()

    def __getstate__(self) -> tuple[Path, tuple[int, int, int, int]]:
        return self._path, self._shape  # a spawned worker maps the file itself, rather than receive its content

    def __setstate__(self, state: tuple[Path, tuple[int, int, int, int]]) -> None:
        MappedPixels.__init__(self, *state)
