import os
from pathlib import Path
from typing import Any

import pytest

from jepa_lab.data.folders.tree import find_image_tree
from jepa_lab.errors import DataError
from tests.unit.data.folders.trees import make, told


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


def test_test_images_may_lack_classes(tmp_path: Path) -> None:
    names = ("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png", "test/a/1.png", "test/b/notes.txt")
    tree = find_image_tree(make(tmp_path, *names))
    assert tree.test is not None
    assert tree.test.labels == (0, 2)
    assert tree.class_names == ("a", "b", "c")


def test_a_test_folder_without_class_folders_is_left_alone_and_named(tmp_path: Path) -> None:
    tree = find_image_tree(make(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png"))
    assert tree.test is None
    assert told(tree) == ("test/ is left alone: it has no class folders, so its images have no labels",)
    tree = find_image_tree(make(tmp_path, "valid/a/1.png", "valid/b/1.png"))
    assert tree.test is not None
    assert {file.parent.parent.name for file in tree.test.files} == {"valid"}


def test_what_lies_beside_train_is_named(tmp_path: Path) -> None:
    names = ("train/a/1.png", "train/b/1.png", "masks/1.png", "extra/2.png", "cover.png", "readme.txt", ".git/x.png")
    tree = find_image_tree(make(tmp_path, *names))
    assert len(tree.train.files) == 2
    assert told(tree) == (
        "left alone beside train/: extra/, masks/",
        "left alone beside train/: 1 image(s), such as cover.png",
    )


def test_pictures_whose_format_is_not_read_are_counted_and_named(tmp_path: Path) -> None:
    names = ("train/a/1.jpg", "train/a/2.HEIC", "train/a/3.heic", "train/b/1.jfif", "train/b/2.dng", "train/b/list.csv")
    tree = find_image_tree(make(tmp_path, *names, "test/a/1.png", "test/a/2.nef"))
    assert tree.findings.unread == ((".heic", 2), (".dng", 1), (".nef", 1))
    assert told(tree) == (
        "4 file(s) left out, whose format is not read: 2 .heic, 1 .dng, 1 .nef (such as train/a/2.HEIC); convert them "
        "to JPEG or PNG to use them",
    )
    assert len(tree.train.files) == 2


@pytest.mark.parametrize("place", ["", "train/"])
def test_a_flat_folder_has_no_labels_and_no_test_split(tmp_path: Path, place: str) -> None:
    tree = find_image_tree(make(tmp_path, f"{place}b.png", f"{place}a.jpeg", f"{place}c.txt", "test/x/1.png"))
    assert [file.name for file in tree.train.files] == ["a.jpeg", "b.png"]
    assert tree.train.labels is None
    assert tree.test is None
    assert tree.class_names == ()
    assert "test/ is left alone: without labels there is no test split" in told(tree)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "holds no images"),
        (("train/notes.txt",), "train holds no images"),
        (("train/a/1.png", "train/b/notes.txt"), "train/b holds no images"),
        (("train/a/1.png", "train/b/1.png", "train/stray.png"), "images beside them (such as 'stray.png')"),
        (("train/a/1.png",), "the single class folder 'a'"),
        (
            ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "test/c/1.png"),
            "test has classes that the training images lack: c",
        ),
        (
            ("train/Ant/1.png", "train/b/1.png", "test/ant/1.png"),
            "test has classes that the training images lack: ant ('ant' and 'Ant' differ in upper and lower case)",
        ),
        (("train/a/1.png", "train/b/1.png", "test/a/x.txt"), "test has class folders without images"),
        (("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/2.png"), "images beside them (such as '2.png')"),
        (("train/images/1.png", "train/labels/1.txt"), "or set labels=none to train without labels"),
        (("train/a/1.png", "train/b/1.png", "train/stray.png"), "or set labels=none to train without labels"),
        (("train/a/1.png", "train/b/1.heic"), "train/b holds no images (but 1 .heic, which is not read: convert"),
    ],
)
def test_a_folder_of_another_layout_is_refused_with_the_reason(
    tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(DataError) as caught:
        find_image_tree(make(tmp_path, *names))
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "root" in caught.value.keys, "blames the folder, not the kind of data set"


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"root must be a folder, got '.*nowhere'"):
        find_image_tree(tmp_path / "nowhere")


def test_imagenette_is_read(tmp_path: Path) -> None:
    tree = find_image_tree(
        make(tmp_path, "noisy_imagenette.csv", "train/n1/a.JPEG", "train/n2/b.JPEG", "val/n1/c.JPEG", "val/n2/d.JPEG")
    )
    assert tree.test is not None
    assert tree.test.labels == (0, 1)
    assert [file.name for file in tree.test.files] == ["c.JPEG", "d.JPEG"]


@pytest.mark.parametrize("target", [".", "..", "../..", "deep/back"])
def test_links_that_lead_in_a_circle_are_named(tmp_path: Path, target: str) -> None:
    make(tmp_path, "train/a/1.png", "train/a/deep/2.png", "train/b/1.png")
    (tmp_path / "train/a/deep/back").symlink_to(tmp_path / "train/a/deep" / target)
    if target == "deep/back":  # a link to itself is no folder at all
        assert len(find_image_tree(tmp_path).train.files) == 3
        return
    with pytest.raises(
        DataError, match=r"the folder .*deep/back.* leads back to a folder that it is in.*remove the link"
    ):
        find_image_tree(tmp_path)


def test_a_folder_that_is_linked_twice_is_no_circle(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/1.png", "train/a/0.png", "train/b/0.png")
    for place in ("train/a/first", "train/a/second", "train/b/first"):
        (tmp_path / place).symlink_to(tmp_path / "elsewhere")
    assert find_image_tree(tmp_path).train.labels == (0, 0, 0, 1, 1)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "train/a/1.png", "train/a/secret/2.png", "train/b/1.png")
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        DataError, match=r"the folder .*a/secret cannot be listed \(Permission denied\); make it readable"
    ):
        find_image_tree(tmp_path)


@pytest.mark.parametrize("place", ["train/a", "."])
def test_what_is_named_as_an_image_and_is_none_is_named(tmp_path: Path, place: str) -> None:
    make(tmp_path, "train/a/1.png", "train/b/1.png") if place != "." else make(tmp_path, "1.png")
    link = tmp_path / place / "2.png"
    link.symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"2.png has the name of an image, but is a link to nothing; remove it"):
        find_image_tree(tmp_path)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(DataError, match=r"2.png has the name of an image, but is a link to nothing; remove it"):
        find_image_tree(tmp_path)
    link.unlink()
    os.mkfifo(link)  # opening it would wait forever
    with pytest.raises(DataError, match=r"2.png has the name of an image, but is neither a file nor a folder"):
        find_image_tree(tmp_path)


def test_names_that_are_not_utf8_work_and_classes_can_be_printed(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"bar"):
        folder = os.fsencode(tmp_path / "train") + b"/" + name
        os.makedirs(folder)
        with open(folder + b"/r\xe9sum\xe9.png", "wb") as file:
            file.write(b"not opened")
    tree = find_image_tree(tmp_path)
    assert tree.class_names == ("bar", r"caf\xe9")
    assert tree.train.labels == (0, 1)
    assert all(file.is_file() for file in tree.train.files)
    os.makedirs(os.fsencode(tmp_path / "train") + b"/\xff")
    with pytest.raises(DataError) as caught:
        find_image_tree(tmp_path)
    str(caught.value).encode()


def test_a_root_with_a_null_character_is_refused() -> None:
    with pytest.raises(DataError, match=r"root must be a folder, got .*which cannot be opened \(embedded null"):
        find_image_tree(Path("a\0b"))
