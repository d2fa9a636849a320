"""Safetensors files that are the same bytes whenever they hold the same tensors and metadata."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from jepa_lab.errors import RunFolderError

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its JSON header, little-endian
_METADATA = "__metadata__"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write a safetensors file to the disk.

    Args:
        metadata: text for its header.
    Returns:
        Its SHA-256, which depends on the tensors and the metadata alone.
    Raises:
        OSError: a full disk, among others.
    """
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, dict(metadata))
    except SafetensorError as error:  # it wraps the operating system's error in words
        number = _OS_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = _with_sorted_metadata(file.read(length))
        file.seek(_LENGTH_BYTES)
        file.write(header)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path, digest: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and the metadata of its header.

    Args:
        digest: the SHA-256 that it must have.
    Raises:
        RunFolderError: it is damaged. OSError: it cannot be read.
    """
    content = path.read_bytes()  # safetensors opens no path that is not UTF-8
    if hashlib.sha256(content).hexdigest() != digest:
        raise RunFolderError(f"{path} is damaged: its SHA-256 is not the one recorded")
    return parse_tensors(content, path)


def parse_tensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in the content of a safetensors file, and the metadata of its header.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise RunFolderError(f"{path} is damaged ({error})") from error
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    return tensors, json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length]).get(_METADATA, {})


def _with_sorted_metadata(header: bytes) -> bytes:
    """The header, of the same length, with its metadata in alphabetical order.

    The library keeps metadata in a hash map whose order is random in every process, and offers no other way; it
    sorts the tensors itself.
    """
    content = json.loads(header)
    content[_METADATA] = dict(sorted(content[_METADATA].items()))
    ordered = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode().ljust(len(header))
    assert len(ordered) == len(header), "the library writes compact JSON, padded with spaces"
    return ordered
