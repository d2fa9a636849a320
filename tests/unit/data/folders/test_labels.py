"""When the names of folders are classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.data.base import FolderChoice
from jepa_lab.data.folders.tree import find_image_tree
from jepa_lab.errors import DataError
from tests.unit.data.folders.trees import make, told

FOLDERS, NONE = FolderChoice(labels="folders"), FolderChoice(labels="none")
CLASSES = "; data.labels=folders takes the folders as classes"
IN_CLASSES = ("cat/1.png", "cat/2.jpg", "dog/1.png", "docs/notes.txt")


def test_folders_of_the_root_are_classes_if_every_image_lies_one_level_down(tmp_path: Path) -> None:
    tree = find_image_tree(make(tmp_path, *IN_CLASSES))
    assert tree.class_names == ("cat", "dog")
    assert tree.train.labels == (0, 0, 1)
    assert [file.name for file in tree.train.files] == ["1.png", "2.jpg", "1.png"]
    assert tree.test is None
    assert told(tree) == (
        "there is no train/: the 2 folders are the classes, as every image lies exactly one level down; "
        "data.labels=none trains without labels; without images, and so no class: docs/",
    )


@pytest.mark.parametrize(
    ("names", "reason", "remedy"),
    [
        (("1.png", "2.png"), "no folder holds images", ""),
        (("cat/1.png", "dog/1.png", "0.png"), "some images lie beside the folders", ""),
        (("cat/1.png", "dog/more/1.png"), "some images lie deeper than one level", CLASSES),
        (("2019/summer/1.png", "2020/winter/1.png"), "some images lie deeper than one level", CLASSES),
        (("photos/1.png", "photos/2.png"), "all images lie in one folder", ""),
    ],
)
def test_otherwise_there_are_no_labels_and_all_images_count(
    tmp_path: Path, names: tuple[str, ...], reason: str, remedy: str
) -> None:
    tree = find_image_tree(make(tmp_path, *names))
    assert (tree.train.labels, tree.test, tree.class_names) == (None, None, ())
    assert [file.relative_to(tmp_path).as_posix() for file in tree.train.files] == sorted(names)
    assert told(tree) == (f"there is no train/, and {reason}: the images have no labels{remedy}",)


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_labels_none_takes_images_at_any_depth(tmp_path: Path, prefix: str) -> None:
    names = sorted(f"{prefix}{name}" for name in ("2019/summer/1.jpg", "2019/2.jpg", "3.jpg", "2020/x/y/4.jpg"))
    tree = find_image_tree(make(tmp_path, *names), NONE)
    assert (tree.train.labels, tree.test, tree.class_names) == (None, None, ())
    assert sorted(file.relative_to(tmp_path).as_posix() for file in tree.train.files) == names


def test_labels_none_trains_on_one_class_and_leaves_the_other_splits_alone(tmp_path: Path) -> None:
    tree = find_image_tree(make(tmp_path, "train/a/1.png", "val/a/2.png", "test/a/3.png"), NONE)
    assert [file.name for file in tree.train.files] == ["1.png"]
    assert told(tree) == (
        "test/ is left alone: without labels there is no test split",
        "val/ is left alone: without labels there is no test split",
    )


def test_labels_folders_searches_each_folder_of_the_root_to_any_depth(tmp_path: Path) -> None:
    tree = find_image_tree(make(tmp_path, "cat/deep/1.png", "dog/1.png", "docs/x.txt"), FOLDERS)
    assert tree.class_names == ("cat", "dog")
    assert tree.train.labels == (0, 1)
    assert told(tree) == (
        "there is no train/: the 2 folders with images are the classes (data.labels=folders); without images, and so "
        "no class: docs/",
    )


def test_training_images_without_class_folders_are_said_to_have_no_labels(tmp_path: Path) -> None:
    tree = find_image_tree(make(tmp_path, "Train/1.png"))
    assert tree.train.labels is None
    assert told(tree) == ("Train/ has no class folders: the images have no labels",)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("cat/1.png", "0.png"), "needs at least two folders with images in .*, got 1; add the other"),
        (("cat/1.png", "dog/1.png", "0.png"), r"images beside them \(such as '0.png'\)"),
        (("train/1.png",), "needs class folders in .*train, which has none"),
    ],
)
def test_labels_folders_insists(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_image_tree(make(tmp_path, *names), FOLDERS)


def test_a_class_called_train_is_not_taken_for_the_training_images(tmp_path: Path) -> None:
    make(tmp_path, "bus/1.png", "car/1.png", "train/1.png")
    with pytest.raises(DataError, match=r"and so do folders beside it: bus/, car/; set labels=folders if train/"):
        find_image_tree(tmp_path)
    tree = find_image_tree(tmp_path, FOLDERS)
    assert tree.class_names == ("bus", "car", "train")
    assert tree.train.labels == (0, 1, 2)


def test_a_data_set_one_level_down_is_pointed_at(tmp_path: Path) -> None:
    make(tmp_path, "unpacked/train/a/1.png", "unpacked/train/b/1.png", "unpacked/test/a/1.png")
    with pytest.raises(DataError, match=r"has no train/, but .*unpacked has; set root=.*unpacked, or labels"):
        find_image_tree(tmp_path)


def test_when_nothing_fits_the_message_says_what_was_found_and_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images to train on: found nothing in it; layouts that are read"):
        find_image_tree(tmp_path)
    make(tmp_path, *(f"{folder}/{number}.heic" for folder in "abcd" for number in range(150)), "a/list.csv", "LICENSE")
    with pytest.raises(DataError) as caught:
        find_image_tree(tmp_path)
    message = str(caught.value)
    assert "found 4 folders and 602 files (600 .heic, 1 without an ending, 1 .csv), and no train/" in message
    assert "convert the pictures to JPEG or PNG" in message
    for layout in ("ROOT/train/<class>/IMAGES", "ROOT/<class>/IMAGES", "at any depth"):
        assert layout in message


REFUSED = {
    "nothing there": ((), FolderChoice()),
    "one class": (("train/a/1.png",), FolderChoice()),
    "one class, asked for": (("cat/1.png", "0.png"), FOLDERS),
    "images beside class folders": (("train/a/1.png", "train/b/1.png", "train/0.png"), FolderChoice()),
    "no class folders, asked for": (("train/1.png",), FOLDERS),
    "an empty class": (("train/a/1.png", "train/b/x.txt"), FolderChoice()),
    "a class called train": (("bus/1.png", "car/1.png", "train/1.png"), FolderChoice()),
    "one level down": (("in/train/a/1.png", "in/train/b/1.png", "in/test/a/1.png"), FolderChoice()),
    "two training folders": (("train/a/1.png", "training/b/1.png"), FolderChoice()),
    "a class that training lacks": (("train/a/1.png", "train/b/1.png", "test/c/1.png"), FolderChoice()),
}


@pytest.mark.parametrize("case", REFUSED)
def test_whatever_is_wrong_with_a_folder_the_setting_that_named_it_is_blamed(tmp_path: Path, case: str) -> None:
    files, reading = REFUSED[case]
    with pytest.raises(DataError) as caught:
        find_image_tree(make(tmp_path, *files), reading)
    assert "root" in caught.value.keys
