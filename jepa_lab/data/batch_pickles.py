"""Reads CIFAR's python batches without executing anything that is in them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

from jepa_lab.errors import DataError

# What the published files refer to; nothing here does more than make an array.
ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, lists, strings, numbers and numpy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which images do not need")
        return super().find_class(module, name)


def read_batch(path: Path) -> dict[str, Any]:
    """One batch file as a dictionary.

    Raises:
        DataError: if the file holds anything but plain data and arrays, or is no pickle.
    """
    try:
        with path.open("rb") as file:
            # Python 2 wrote the files: latin1 keeps its strings and the bytes of arrays without loss.
            batch = _ArrayUnpickler(file, encoding="latin1").load()
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} cannot be read ({error}); replace it by the published file") from error
    assert isinstance(batch, dict), type(batch)
    return batch


def has_md5(path: Path, digest: str) -> bool:
    """Whether the file's MD5 digest is the published one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == digest
