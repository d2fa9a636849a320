import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from jepa_lab.data.idx import read_idx, read_idx_shape
from jepa_lab.errors import DataError
from tests.unit.data.files import idx_bytes

ARRAY = np.random.RandomState(0).randint(0, 256, (3, 4, 5)).astype(np.uint8)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_written_array_is_read_back(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("images.gz" if compressed else "images")
    path.write_bytes(gzip.compress(idx_bytes(ARRAY)) if compressed else idx_bytes(ARRAY))
    assert np.array_equal(read_idx(path).numpy(), ARRAY)
    assert read_idx_shape(path) == (3, 4, 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx_bytes(ARRAY)[:-1], "must hold 60 bytes for shape (3, 4, 5), but has only 59 bytes"),
        (idx_bytes(ARRAY) + b"x", "has more bytes"),
        (idx_bytes(ARRAY)[:9], "ends inside its header of 3 dimensions"),
        (b"", "must be an IDX file"),
        (b"\x00\x00\x0d\x01" + struct.pack(">If", 1, 0.5), "must be an IDX file of unsigned bytes"),
        (b"<html>not found</html>", "starts with '3c 68 74 6d'"),
        (b"\x00\x00\x08\x04" + b"\xff" * 16, "claims the shape"),
    ],
)
def test_a_file_that_is_not_what_its_header_says_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "replace it" in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "not gzip", "flipped"])
def test_a_damaged_compressed_file_is_named(tmp_path: Path, damage: str) -> None:
    whole = bytearray(gzip.compress(idx_bytes(ARRAY)))
    flipped = whole[:20] + bytes([whole[20] ^ 0xFF]) + whole[21:]
    content = {"cut": whole[: len(whole) // 2], "not gzip": idx_bytes(ARRAY), "flipped": flipped}[damage]
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images.gz cannot be read"):
        read_idx(path)


def test_a_damaged_header_of_a_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"images.gz cannot be read"):
        read_idx_shape(path)
