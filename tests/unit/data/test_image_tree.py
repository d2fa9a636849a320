from pathlib import Path

import pytest

from jepa_lab.data.image_tree import find_image_tree
from jepa_lab.errors import DataError


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")
    return root


def test_class_folders_give_labels_in_the_order_of_their_names(tmp_path: Path) -> None:
    tree = find_image_tree(
        make(tmp_path, "train/b/1.png", "train/b/0.png", "train/a/2.jpg", "test/a/3.png", "test/b/4.png")
    )
    assert tree.class_names == ("a", "b")
    assert [file.name for file in tree.train.files] == ["2.jpg", "0.png", "1.png"]
    assert tree.train.labels == (0, 1, 1)
    assert tree.test is not None
    assert [file.name for file in tree.test.files] == ["3.png", "4.png"]
    assert tree.test.labels == (0, 1)


def test_extensions_in_any_case_and_nested_files_count_and_others_do_not(tmp_path: Path) -> None:
    tree = find_image_tree(
        make(
            tmp_path,
            "train/a/X.JPG",
            "train/a/deep/er/Y.Png",
            "train/a/notes.txt",
            "train/a/._X.JPG",
            "train/a/.cache/z.png",
            "train/b/1.webp",
            "train/.hidden/1.png",
            "train/readme.md",
        )
    )
    assert tree.class_names == ("a", "b")
    assert sorted(file.name for file in tree.train.files) == ["1.webp", "X.JPG", "Y.Png"]
    assert tree.test is None


def test_linked_folders_are_followed_at_any_depth(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/cat/1.png", "elsewhere/more/2.png", "data/train/dog/1.png")
    (tmp_path / "data/train/cat").symlink_to(tmp_path / "elsewhere/cat")
    (tmp_path / "data/train/dog/more").symlink_to(tmp_path / "elsewhere/more")
    tree = find_image_tree(tmp_path / "data")
    assert tree.class_names == ("cat", "dog")
    assert tree.train.labels == (0, 1, 1)


def test_val_is_the_test_split_unless_there_is_a_test_folder(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/v.png", "val/b/v.png")
    tree = find_image_tree(tmp_path)
    assert tree.test is not None
    assert {file.name for file in tree.test.files} == {"v.png"}
    make(tmp_path, "test/a/t.png", "test/b/t.png")
    tree = find_image_tree(tmp_path)
    assert tree.test is not None
    assert {file.name for file in tree.test.files} == {"t.png"}


@pytest.mark.parametrize("place", ["", "train/"])
def test_a_flat_folder_has_no_labels_and_no_test_split(tmp_path: Path, place: str) -> None:
    tree = find_image_tree(make(tmp_path, f"{place}b.png", f"{place}a.jpeg", f"{place}c.txt", "test/x/1.png"))
    assert [file.name for file in tree.train.files] == ["a.jpeg", "b.png"]
    assert tree.train.labels is None
    assert tree.test is None
    assert tree.class_names == ()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "holds no images"),
        (("cat/1.png", "dog/1.png"), "expected ROOT/train/<class>/IMAGES"),
        (("train/notes.txt",), "train holds no images"),
        (("train/a/1.png", "train/b/notes.txt"), "train/b holds no images"),
        (("train/a/1.png", "train/b/1.png", "train/stray.png"), "images beside them (such as 'stray.png')"),
        (("train/a/1.png",), "the single class folder 'a'"),
        (("train/a/1.png", "train/b/1.png", "test/a/1.png"), "test lacks classes of the training images: b"),
        (
            ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "test/c/1.png"),
            "test has classes that the training images lack: c",
        ),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), "test lacks classes"),
        (("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/x.txt"), "test/b holds no images"),
    ],
)
def test_a_folder_of_another_layout_is_refused_with_the_reason(
    tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(DataError) as caught:
        find_image_tree(make(tmp_path, *names))
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.root must be a folder, got '.*nowhere'"):
        find_image_tree(tmp_path / "nowhere")
