"""Reads IDX files, the format of MNIST and Fashion-MNIST, gzip-compressed or not."""

from __future__ import annotations

import gzip
import hashlib
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
MAX_DIMENSIONS = 8
MAX_BYTES = 1 << 32
PIECE_BYTES = 1 << 24
REMEDY = "replace it by the published file"


def read_idx(path: Path, md5: str | None = None) -> Tensor:
    """Read a file of unsigned bytes.

    Args:
        md5: hexadecimal digest that the file, unpacked, must have; None checks the structure alone.
    Returns:
        uint8, of the shape that the file's header states.
    Raises:
        DataError: if the file is not such a file, is shorter or longer than its header says, or has another
            digest (named).
    Source: the file format described on the MNIST page (LeCun, Cortes, Burges).
    """
    try:
        with _open(path) as file:
            header, shape = _read_header(path, file)
            wanted = math.prod(shape)
            content = _read_at_most(file, wanted + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {REMEDY}") from error
    if len(content) != wanted:
        got = f"only {len(content)} bytes" if len(content) < wanted else "more bytes"
        raise DataError(f"{path} must hold {wanted} bytes for shape {shape}, but has {got}; {REMEDY}")
    if md5 is not None and hashlib.md5(header + content, usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{path} is damaged: its content has another MD5 digest than the published file; {REMEDY}")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(shape))


def read_idx_shape(path: Path) -> tuple[int, ...]:
    """The shape in the header of an IDX file, without reading its content.

    Raises:
        DataError: if the file is not an IDX file of unsigned bytes (named).
    """
    try:
        with _open(path) as file:
            return _read_header(path, file)[1]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {REMEDY}") from error


def _open(path: Path) -> BinaryFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _read_at_most(file: BinaryFile, count: int) -> bytearray:
    """The next `count` bytes, or what there is; memory grows with what is there, not with what a header claims."""
    content = bytearray()
    while len(content) < count:
        piece = file.read(min(PIECE_BYTES, count - len(content)))
        if not piece:
            break
        content += piece
    return content


def _read_header(path: Path, file: BinaryFile) -> tuple[bytes, tuple[int, ...]]:
    """Two zero bytes, the type, the number of dimensions; then each dimension, 32 bits, big-endian.

    Returns:
        (the header's bytes, the shape).
    """
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UINT8_CODE]) or not 1 <= magic[3] <= MAX_DIMENSIONS:
        start = magic.hex(" ")
        raise DataError(
            f"{path} must be an IDX file of unsigned bytes with 1 to {MAX_DIMENSIONS} dimensions, but starts with "
            f"{start!r}; {REMEDY}"
        )
    num_dimensions = magic[3]
    sizes = file.read(4 * num_dimensions)
    if len(sizes) < 4 * num_dimensions:
        raise DataError(f"{path} ends inside its header of {num_dimensions} dimensions; {REMEDY}")
    shape = struct.unpack(f">{num_dimensions}I", sizes)
    if math.prod(shape) > MAX_BYTES:
        raise DataError(f"{path} claims the shape {shape}, which is over {MAX_BYTES} bytes; {REMEDY}")
    return magic + sizes, shape
