import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_lab.data.batch_pickles import read_batch, read_image_batch, read_names
from jepa_lab.errors import DataError
from tests.unit.data.files import python2_pickle

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 12)


class Attack:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def test_a_batch_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": Attack()}))
    with pytest.raises(DataError, match=r"data_batch_1 cannot be read \(it refers to builtins.exec"):
        read_batch(path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", pickle.dumps({"a": 1})[:-2]])
def test_a_file_that_is_no_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_1 cannot be read"):
        read_batch(path)


class Swapped:
    """Pickles to a call of numpy's `dtype` or `ndarray` with any arguments."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def write(tmp_path: Path, **entries: object) -> Path:
    path = tmp_path / "batch"
    path.write_bytes(python2_pickle(entries))
    return path


def test_a_published_batch_is_read(tmp_path: Path) -> None:
    pixels, labels = read_image_batch(write(tmp_path, data=PIXELS, labels=[1, 0, 2, 2]), "labels", 12, 3)
    assert np.array_equal(pixels, PIXELS)
    assert pixels.flags.writeable
    assert labels == [1, 0, 2, 2]
    assert read_names(write(tmp_path, label_names=["cat", "dog"]), "label_names", 2) == ("cat", "dog")


def test_the_oldest_kind_of_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "batches.meta"
    path.write_bytes(
        b"(dp1\nS'num_cases_per_batch'\np2\nI10000\nsS'label_names'\np3\n(lp4\nS'cat'\np5\naS'dog'\np6\nas."
    )
    assert read_batch(path) == {"num_cases_per_batch": 10000, "label_names": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"labels": [0]}, "must hold 'data' with 12 bytes an image"),
        ({"data": [1, 2], "labels": [0]}, "must hold 'data' with 12 bytes an image"),
        ({"data": PIXELS[:, :11], "labels": [0] * 4}, "must hold 'data' with 12 bytes an image"),
        ({"data": PIXELS}, "must hold 'labels' with a label from 0 to 2 for each of its 4 images"),
        ({"data": PIXELS, "labels": [0, 1, 2]}, "must hold 'labels'"),
        ({"data": PIXELS, "labels": [0, 1, 2, 3]}, "must hold 'labels'"),
        ({"data": PIXELS, "labels": [0, 1, 2, -1]}, "must hold 'labels'"),
        ({"data": PIXELS, "labels": [0, 1, 2, "2"]}, "must hold 'labels'"),
    ],
)
def test_a_batch_with_other_content_is_refused_with_the_reason(
    tmp_path: Path, entries: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_image_batch(write(tmp_path, **entries), "labels", 12, 3)
    assert words in str(caught.value)
    assert str(tmp_path / "batch") in str(caught.value)


@pytest.mark.parametrize("names", [["cat"], ["cat", "cat"], ["cat", 1], "cat"])
def test_names_must_be_as_many_as_classes(tmp_path: Path, names: object) -> None:
    with pytest.raises(DataError, match=r"batch must hold 'label_names' with 2 names"):
        read_names(write(tmp_path, label_names=names), "label_names", 2)


def test_a_pickle_of_no_dictionary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match=r"batch must be the pickle of a dictionary, got one of a list"):
        read_batch(path)


HUGE = (1 << 40).to_bytes(8, "little")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}r\xff\xff\xff\x0f.",  # a memo of 268 million entries
        b"\x80\x02}p268435455\n.",
        b"\x80\x04\x8e" + HUGE + b"few.",  # bytes that are not there
        b"\x80\x05\x96" + HUGE + b"few.",
        pickle.dumps({"data": Swapped(np.ndarray, (1 << 40,))}, protocol=2),
        pickle.dumps({"data": Swapped(np.dtype, "V1099511627776")}, protocol=2),
        # An array whose content is a number: bytes(number) would be as many zeros.
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n)R(K\x01J\x00\x00\x00\x04\x85cnumpy\ndtype\n"
        b"U\x02u1\x85R\x89J\x00\x00\x00\x04tbs.",
    ],
    ids=["memo", "memo in text", "bytes", "bytearray", "array", "type", "content"],
)
def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "batch"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert read_batch(path) == {"data": None}  # a call that makes nothing
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


@pytest.mark.parametrize("protocol", ["python 2", 0, 4, 5])
def test_damaged_files_give_a_data_error_or_a_batch_and_nothing_else(tmp_path: Path, protocol: Any) -> None:
    entries = {"name": "cat\u00e9", "labels": [1, 2, 3, 300000], "more": [1.5, None, True, (2**70, b"raw")]}
    if protocol == "python 2":
        whole = python2_pickle({"data": PIXELS, "labels": [1, 2, 3, 0]})
    else:
        whole = pickle.dumps(entries, protocol=protocol)
    random = np.random.RandomState(0)
    path = tmp_path / "batch"
    refused = 0
    for _ in range(1000):
        content = np.frombuffer(whole, np.uint8).copy()
        places = random.randint(0, len(content), random.choice([1, 1, 2, 8]))
        content[places] = random.randint(0, 256, len(places))
        path.write_bytes(content[: random.choice([len(content), random.randint(0, len(content))])].tobytes())
        try:
            read_image_batch(path, "labels", 12, 10)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 500
