"""Which folder is training, validation and test, by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.data.base import FolderChoice
from jepa_lab.data.folders.tree import ImageTree, find_image_tree
from jepa_lab.errors import DataError
from tests.unit.data.folders.trees import make, told

CHOSEN = FolderChoice(validation_split="folder")


def with_folders(root: Path, *folders: str) -> Path:
    """Two classes in each folder, a file in each that has the name of the folder."""
    return make(root, *(f"{folder}/{name}/{folder}.png" for folder in folders for name in ("a", "b")))


def names(tree: ImageTree) -> tuple[str, str | None, str | None]:
    """The folders of training, test and validation images."""
    parts = (tree.train, tree.test, tree.validation)
    found = [None if part is None else {file.stem for file in part.files} for part in parts]
    assert all(each is None or len(each) == 1 for each in found)
    first, *others = (None if each is None else each.pop() for each in found)
    assert first is not None
    return first, others[0], others[1]


@pytest.mark.parametrize("train", ["train", "training", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "testing", "Test"])
def test_training_and_test_folders_are_known_by_their_usual_names(tmp_path: Path, train: str, test: str) -> None:
    assert names(find_image_tree(with_folders(tmp_path, train, test))) == (train, test, None)


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Valid"])
def test_a_validation_folder_is_the_test_split_if_there_is_no_test_folder(tmp_path: Path, validation: str) -> None:
    tree = find_image_tree(with_folders(tmp_path, "train", validation))
    assert names(tree) == ("train", validation, None)
    assert told(tree) == (
        f"{validation}/ is the test split, as there is no other; data.validation_split=folder makes it the validation "
        "split",
    )


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_a_validation_folder_beside_a_test_folder_is_left_out_and_named(tmp_path: Path, validation: str) -> None:
    tree = find_image_tree(with_folders(tmp_path, "train", validation, "test"))
    assert names(tree) == ("train", "test", None)
    assert told(tree) == (
        f"{validation}/ is left out of training and of the test split; data.validation_split=folder uses it as the "
        "validation split",
    )


@pytest.mark.parametrize(("others", "test"), [(("valid", "test"), "test"), (("valid",), None)])
def test_a_validation_folder_that_is_chosen_is_the_validation_split_and_never_the_test_split(
    tmp_path: Path, others: tuple[str, ...], test: str | None
) -> None:
    tree = find_image_tree(with_folders(tmp_path, "train", *others), CHOSEN)
    assert names(tree) == ("train", test, "valid")
    assert told(tree) == ("valid/ is the validation split (data.validation_split=folder)",)


def test_validation_images_without_labels_go_with_training_images_without_labels(tmp_path: Path) -> None:
    tree = find_image_tree(make(tmp_path, "train/1.png", "val/deep/2.png"), CHOSEN)
    assert (tree.train.labels, tree.test, tree.class_names) == (None, None, ())
    assert tree.validation is not None
    assert tree.validation.labels is None
    assert [file.name for file in tree.validation.files] == ["2.png"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("test/a/1.png", "test/b/1.png"), "needs a folder val/, valid/ or validation/ in"),
        (("val/1.png",), "needs class folders in .*val, as the training images have"),
        (("val/c/1.png",), "val has classes that the training images lack: c"),
    ],
)
def test_a_validation_folder_that_cannot_be_used_is_refused(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_image_tree(make(tmp_path, "train/a/1.png", "train/b/1.png", *files), CHOSEN)


@pytest.mark.parametrize(
    "folders", [("train", "training"), ("val", "valid"), ("valid", "validation"), ("test", "Test"), ("test", "testing")]
)
def test_two_folders_of_the_same_role_are_an_error_that_names_both(tmp_path: Path, folders: tuple[str, str]) -> None:
    with_folders(tmp_path, "train", *folders)
    with pytest.raises(DataError) as caught:
        find_image_tree(tmp_path)
    assert all(f"{folder}/" in str(caught.value) for folder in folders)
    assert "the same role; keep one of them" in str(caught.value)


def test_without_train_the_folders_of_other_splits_are_not_trained_on(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png", "Test/a/3.png", "valid/b/4.png")
    tree = find_image_tree(tmp_path)
    assert [file.name for file in tree.train.files] == ["1.png", "2.png"]
    assert tree.test is not None
    assert [file.name for file in tree.test.files] == ["3.png"]
    tree = find_image_tree(tmp_path, FolderChoice(labels="none"))
    assert [file.name for file in tree.train.files] == ["1.png", "2.png"]
    with pytest.raises(
        DataError,
        match=r"holds no images to train on: found 1 folder and 1 file \(1 .png\), and no train/ "
        r"beside test/",
    ):
        find_image_tree(make(tmp_path / "alone", "test/a/3.png"))
