from pathlib import Path

import pytest

from jepa_lab.data.base import FolderChoice
from jepa_lab.data.folders.tree import find_image_tree
from jepa_lab.errors import DataError
from tests.unit.data.folders.trees import make

TINY_TRAIN = ("train/n01/images/n01_0.JPEG", "train/n01/n01_boxes.txt", "train/n02/images/n02_0.JPEG")
TINY_VAL = tuple(f"val/images/val_{number}.JPEG" for number in range(3))
ANNOTATIONS = "val_0.JPEG\tn02\t0\t0\t62\t62\nval_2.JPEG\tn01\t1\t1\t5\t5\nval_1.JPEG\tn02\t0\t0\t9\t9\n"


def tiny_imagenet(root: Path, annotations: str = ANNOTATIONS) -> Path:
    make(root, *TINY_TRAIN, *TINY_VAL, "test/images/test_0.JPEG", "wnids.txt")
    (root / "val" / "val_annotations.txt").write_text(annotations)
    return root


def test_the_annotated_val_of_tiny_imagenet_is_the_test_split(tmp_path: Path) -> None:
    tree = find_image_tree(tiny_imagenet(tmp_path))
    assert tree.class_names == ("n01", "n02")
    assert [file.name for file in tree.train.files] == ["n01_0.JPEG", "n02_0.JPEG"]
    assert tree.test is not None
    assert [file.name for file in tree.test.files] == ["val_2.JPEG", "val_0.JPEG", "val_1.JPEG"]
    assert tree.test.labels == (0, 1, 1)


def test_a_tiny_imagenet_whose_val_was_sorted_into_classes_is_read(tmp_path: Path) -> None:
    make(tmp_path, *TINY_TRAIN, "val/n01/a.JPEG", "val/n02/images/b.JPEG", "test/images/test_0.JPEG")
    (tmp_path / "val" / "val_annotations.txt").write_text(ANNOTATIONS)
    tree = find_image_tree(tmp_path)
    assert tree.test is not None
    assert [file.name for file in tree.test.files] == ["a.JPEG", "b.JPEG"]


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ("", "must give the class of each image in"),
        (ANNOTATIONS[:-30], "does not name 1 of them (such as 'val_1.JPEG')"),
        (ANNOTATIONS.replace("val_1", "val_7"), "val_annotations.txt:3: 'val_7.JPEG' is not in"),
        (ANNOTATIONS.replace("val_1", "val_0"), "val_annotations.txt:3: 'val_0.JPEG' is not in"),
        (ANNOTATIONS.replace("n01", "n99"), "val_annotations.txt:2: the class 'n99' has no folder in train"),
        ("<html>\n", "val_annotations.txt:1: '<html>' is not FILE, tab, CLASS"),
        ("\x00\ud800", "val_annotations.txt:1: "),
    ],
)
def test_annotations_that_do_not_fit_are_refused_with_file_and_line(
    tmp_path: Path, annotations: str, words: str
) -> None:
    tiny_imagenet(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_bytes(annotations.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError) as caught:
        find_image_tree(tmp_path)
    assert words in str(caught.value)
    assert "restore the published file" in str(caught.value)


def test_the_annotated_val_can_be_the_validation_split(tmp_path: Path) -> None:
    tree = find_image_tree(tiny_imagenet(tmp_path), FolderChoice(validation_split="folder"))
    assert tree.validation is not None
    assert tree.validation.labels == (0, 1, 1)
    assert tree.test is None
