"""Writes tiny data sets in the layouts of the real ones."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import STL10, CelebA

CIFAR_BATCHES = {
    "cifar-10-batches-py": (
        ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
        ("test_batch",),
    ),
    "cifar-100-python": (("train",), ("test",)),
}


def write_image(path: Path, pixels: np.ndarray | None = None, size: tuple[int, int] = (9, 7), seed: int = 0) -> None:
    """Save pixels [H, W, 3] (random ones of `size` = width, height if None)."""
    if pixels is None:
        pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_tree(root: Path, splits: dict[str, int], class_names: list[str]) -> None:
    """`root/<split>/<class>/<number>.png`, so many images a class, all different."""
    seed = 0
    for split, count in splits.items():
        for name in class_names:
            for number in range(count):
                write_image(root / split / name / f"{number}.png", seed=seed)
                seed += 1


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_fashion(folder: Path, num_train: int = 20, num_test: int = 10, compressed: bool = True) -> dict[str, str]:
    """The four files of Fashion-MNIST with random images and cyclic labels.

    Returns:
        MD5 digest of each file, unpacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    digests = {}
    for prefix, count in (("train", num_train), ("t10k", num_test)):
        content = {
            f"{prefix}-images-idx3-ubyte": random.randint(0, 256, (count, 28, 28)),
            f"{prefix}-labels-idx1-ubyte": np.arange(count) % 10,
        }
        for name, array in content.items():
            raw = idx_bytes(array)
            (folder / (name + ".gz" * compressed)).write_bytes(gzip.compress(raw) if compressed else raw)
            digests[name] = hashlib.md5(raw).hexdigest()
    return digests


def publish_fashion(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files that are taken for the published ones."""
    monkeypatch.setattr("jepa_lab.data.datasets.fashion_mnist.CONTENT_MD5", write_fashion(root))


STL10_COUNTS = {"unlabeled": 12, "train": 20, "test": 10}


def write_stl10(root: Path) -> dict[str, str]:
    """Random images and cyclic labels in the binary files of STL-10.

    Returns:
        MD5 digest of each file.
    """
    folder = root / "stl10_binary"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    contents = {f"{part}_X.bin": random.bytes(count * 3 * 96 * 96) for part, count in STL10_COUNTS.items()}
    for part in ("train", "test"):
        contents[f"{part}_y.bin"] = bytes(1 + number % 10 for number in range(STL10_COUNTS[part]))
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}


def publish_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files that are taken for the published ones."""
    digests = write_stl10(root)
    for attribute in ("train_list", "test_list"):
        files = [[name, digests[name]] for name, _ in getattr(STL10, attribute)]
        monkeypatch.setattr(STL10, attribute, files)


def publish_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small tree that is taken for all of ImageNet."""
    write_tree(root, {"train": 2, "val": 1}, ["n01440764", "n01443537", "n01484850"])
    monkeypatch.setattr("jepa_lab.data.datasets.imagenet.NUM_CLASSES", 3)
    monkeypatch.setattr("jepa_lab.data.datasets.imagenet.NUM_IMAGES", {"train": 6, "val": 3})


CELEBA_PARTS = (0, 0, 2, 1, 0, 2, 0)


def write_celeba(folder: Path) -> None:
    """Images and the two lists; every second one smiles, the first and the sixth are bald."""
    names = [f"{number:06d}.jpg" for number in range(1, len(CELEBA_PARTS) + 1)]
    for seed, name in enumerate(names):
        write_image(folder / "img_align_celeba" / name, size=(18, 22), seed=seed)
    rows = [
        f"{name} {1 if number in (0, 5) else -1:2d} {-1 if number % 2 else 1:2d}" for number, name in enumerate(names)
    ]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), "Bald Smiling ", *rows]) + "\n")
    lines = [f"{name} {part}" for name, part in zip(names, CELEBA_PARTS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")


def publish_celeba(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files that are taken for the published ones."""
    write_celeba(root / "celeba")
    files = [
        (
            number,
            hashlib.md5((root / "celeba" / name).read_bytes()).hexdigest() if name.startswith("list_") else md5,
            name,
        )
        for number, md5, name in CelebA.file_list
        if name in ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt")
    ]
    monkeypatch.setattr(CelebA, "file_list", files)


def python2_pickle(entries: dict[str, object]) -> bytes:
    """A pickle (protocol 2) with the opcodes that Python 2 wrote into CIFAR's batches."""
    return b"\x80\x02}(" + b"".join(_python2_value(key) + _python2_value(entries[key]) for key in entries) + b"u."


def _python2_value(value: object) -> bytes:
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(_python2_value(item) for item in value) + b"e"
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.uint8
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(_python2_value(length) for length in value.shape) + b"\x86"
    raw = value.tobytes()
    content = b"T" + struct.pack("<I", len(raw)) + raw
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def write_cifar_batches(
    root: Path, base_folder: str, label_key: str, class_names: list[str], meta: str
) -> dict[str, str]:
    """Batches of 4 images each, and the meta file.

    Returns:
        MD5 digest of each file.
    """
    folder = root / base_folder
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(0)
    contents = {}
    for names in CIFAR_BATCHES[base_folder]:
        for name in names:
            labels = [int(label) for label in random.randint(0, len(class_names), 4)]
            pixels = random.randint(0, 256, (4, 3072)).astype(np.uint8)
            contents[name] = python2_pickle({"batch_label": name, label_key: labels, "data": pixels})
    meta_file, meta_key = meta.split(":")
    contents[meta_file] = python2_pickle({meta_key: list(class_names)})
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}


def names(count: int) -> list[str]:
    """`count` class names in sorted order."""
    return [f"class_{number:03d}" for number in range(count)]


def write_masked(root: Path, counts: dict[str, int], size: tuple[int, int] = (20, 14), seed: int = 0) -> None:
    """`images/<split>/` and `masks/<split>/`; an empty name of a split puts files into the folders themselves.

    A mask is 0 but for a box of 1 or 2, and its last row is ignored; the picture is bright where the class is.
    """
    generator = np.random.default_rng(seed)
    width, height = size
    for split, count in counts.items():
        for number in range(count):
            mask = np.zeros((height, width), dtype=np.uint8)
            top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
            mask[top : top + height // 2, left : left + width // 2] = 1 + number % 2
            mask[-1] = 255
            picture = np.clip(mask[..., None] * 90 + generator.integers(0, 60, (height, width, 3)), 0, 255)
            for kind, pixels in (("images", picture.astype(np.uint8)), ("masks", mask)):
                folder = root / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")


SMALL_ROOTS: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "celeba": publish_celeba,
    "cifar10": lambda root, _: write_tree(root, {"train": 2, "test": 1}, names(10)),
    "cifar100": lambda root, _: write_tree(root, {"train": 2, "test": 1}, names(100)),
    "fashion_mnist": publish_fashion,
    "image_folder": lambda root, _: write_tree(root, {"train": 3, "test": 2}, names(3)),
    "imagenet": publish_imagenet,
    "segmentation_folder": lambda root, _: write_masked(root, {"train": 4, "test": 3}),
    "stl10": publish_stl10,
}
