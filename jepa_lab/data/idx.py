"""Reads IDX files, the format of MNIST and Fashion-MNIST, gzip-compressed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from jepa_lab.errors import DataError

BinaryFile: TypeAlias = gzip.GzipFile | BufferedReader

UINT8_CODE = 0x08
MAX_BYTES = 1 << 32
REMEDY = "replace it by the published file"


def read_idx(path: Path) -> Tensor:
    """Read a file of unsigned bytes.

    Returns:
        uint8, of the shape that the file's header states.
    Raises:
        DataError: if the file is not such a file, or is shorter or longer than its header says (named).
    Source: the file format described on the MNIST page (LeCun, Cortes, Burges).
    """
    try:
        with _open(path) as file:
            shape = _read_header(path, file)
            wanted = math.prod(shape)
            content = file.read(wanted + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {REMEDY}") from error
    if len(content) != wanted:
        got = f"only {len(content)} bytes" if len(content) < wanted else "more bytes"
        raise DataError(f"{path} must hold {wanted} bytes for shape {shape}, but has {got}; {REMEDY}")
    return torch.from_numpy(np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape))


def read_idx_shape(path: Path) -> tuple[int, ...]:
    """The shape in the header of an IDX file, without reading its content.

    Raises:
        DataError: if the file is not an IDX file of unsigned bytes (named).
    """
    try:
        with _open(path) as file:
            return _read_header(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {REMEDY}") from error


def _open(path: Path) -> BinaryFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _read_header(path: Path, file: BinaryFile) -> tuple[int, ...]:
    """Two zero bytes, the type, the number of dimensions; then each dimension, 32 bits, big-endian."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UINT8_CODE]) or magic[3] == 0:
        start = magic.hex(" ")
        raise DataError(f"{path} must be an IDX file of unsigned bytes, but starts with {start!r}; {REMEDY}")
    num_dimensions = magic[3]
    sizes = file.read(4 * num_dimensions)
    if len(sizes) < 4 * num_dimensions:
        raise DataError(f"{path} ends inside its header of {num_dimensions} dimensions; {REMEDY}")
    shape = struct.unpack(f">{num_dimensions}I", sizes)
    if math.prod(shape) > MAX_BYTES:
        raise DataError(f"{path} claims the shape {shape}, which is over {MAX_BYTES} bytes; {REMEDY}")
    return shape
