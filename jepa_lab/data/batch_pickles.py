"""Reads CIFAR's python batches without executing anything that is in them."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from jepa_lab.errors import DataError

REMEDY = "replace it by the published file"

# What Python's unpickler raises for pickles that are damaged or made up; fuzzing finds them all.
BROKEN_PICKLE = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    ImportError,
    RecursionError,
    MemoryError,
)


class _PickledArray:
    """Stands in for numpy's array while unpickling: it takes bytes and a shape, and nothing else.

    numpy's own classes would allocate whatever size a pickle asks for.
    """

    __slots__ = ("pixels",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, content = state
        raw = content.encode("latin1") if isinstance(content, str) else content
        # Not `bytes(content)`: of a number it would be as many zeros.
        if not isinstance(raw, bytes) or not isinstance(dtype, _PickledType) or len(raw) != math.prod(shape):
            raise pickle.UnpicklingError("it holds an array that is not of unsigned bytes")
        self.pixels = np.frombuffer(bytearray(raw), dtype=np.uint8).reshape(shape)


class _PickledType:
    """Stands in for numpy's data type; unsigned bytes are the only one."""

    __slots__ = ()

    def __init__(self, name: str, *_: object) -> None:
        if name != "u1":
            raise pickle.UnpicklingError(f"it holds an array of type {name!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which bytes do not have."""


def _array_type(*_: object) -> None:
    """Stands in for the class that is named in a call of `_reconstruct`."""


def _reconstruct(*_: object) -> _PickledArray:
    return _PickledArray()


# What the published files refer to; nothing here does more than make an array from bytes.
ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _array_type,
    ("numpy", "dtype"): _PickledType,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, lists, strings, numbers and arrays of bytes, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which images do not need")
        return ALLOWED_GLOBALS[module, name]


def read_batch(path: Path) -> dict[str, Any]:
    """One batch file as a dictionary; arrays are numpy arrays of uint8.

    Raises:
        DataError: if the file holds anything but plain data and arrays of bytes, or is no pickle of a dictionary.
    """
    try:
        content = path.read_bytes()
        with warnings.catch_warnings(action="ignore"):  # of escapes in damaged strings
            _check_memo(content)
            # Python 2 wrote the files: latin1 keeps its strings and the bytes of arrays without loss.
            batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except BROKEN_PICKLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); {REMEDY}") from error
    if not isinstance(batch, dict):
        raise DataError(f"{path} must be the pickle of a dictionary, got one of a {type(batch).__name__}; {REMEDY}")
    return {
        str(key): getattr(value, "pixels", None) if isinstance(value, _PickledArray) else value
        for key, value in batch.items()
    }


def read_image_batch(path: Path, label_key: str, num_values: int, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """The images and labels of one batch file.

    Args:
        num_values: numbers an image.
    Returns:
        Pixels [n, num_values] uint8, and n labels from 0 to `num_classes` - 1.
    Raises:
        DataError: see `read_batch`; or other shapes or labels.
    """
    batch = read_batch(path)
    pixels, labels = batch.get("data"), batch.get(label_key)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != num_values:
        raise DataError(f"{path} must hold 'data' with {num_values} bytes an image; {REMEDY}")
    wanted = range(num_classes)
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and label in wanted for label in labels)
    ):
        raise DataError(
            f"{path} must hold {label_key!r} with a label from 0 to {num_classes - 1} for each of its "
            f"{len(pixels)} images; {REMEDY}"
        )
    return pixels, labels


def read_names(path: Path, key: str, count: int) -> tuple[str, ...]:
    """The class names of a meta file.

    Raises:
        DataError: see `read_batch`; or not `count` different names.
    """
    names = read_batch(path).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != count:
        raise DataError(f"{path} must hold {key!r} with {count} names; {REMEDY}")
    return tuple(names)


def _check_memo(content: bytes) -> None:
    """Refuse memo numbers that no honest pickle has: the unpickler allocates a table of that size at once."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"it claims a table of {argument} entries")
