import gzip
import hashlib
import struct
import tracemalloc
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


def test_a_file_with_another_digest_is_named_and_its_own_digest_is_accepted(tmp_path: Path) -> None:
    raw = idx_bytes(ARRAY)
    (tmp_path / "plain").write_bytes(raw)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(raw, mtime=1))
    for name in ("plain", "packed.gz"):
        assert np.array_equal(read_idx(tmp_path / name, hashlib.md5(raw).hexdigest()), ARRAY)
        with pytest.raises(DataError, match=rf"{name} is damaged: its content has another MD5 digest"):
            read_idx(tmp_path / name, hashlib.md5(raw[:-1]).hexdigest())


def test_memory_grows_with_the_content_and_not_with_the_claim(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(b"\x00\x00\x08\x01" + struct.pack(">I", (1 << 32) - 1) + b"few")
    tracemalloc.start()
    with pytest.raises(DataError, match=r"must hold 4294967295 bytes .* but has only 3 bytes"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 26


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_files_give_a_data_error_or_an_array_and_nothing_else(tmp_path: Path, compressed: bool) -> None:
    raw = idx_bytes(ARRAY)
    whole = np.frombuffer(gzip.compress(raw) if compressed else raw, np.uint8)
    random = np.random.RandomState(0)
    path = tmp_path / ("a.gz" if compressed else "a")
    refused = 0
    for _ in range(1000):
        content = whole.copy()
        content[random.randint(0, len(content), 2)] = random.randint(0, 256, 2)
        path.write_bytes(content[: random.choice([len(content), random.randint(0, len(content))])].tobytes())
        try:
            read_idx(path)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 400
