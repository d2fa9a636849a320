import os
from pathlib import Path
from typing import Any

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


def test_imagenette_is_read(tmp_path: Path) -> None:
    tree = find_image_tree(
        make(tmp_path, "noisy_imagenette.csv", "train/n1/a.JPEG", "train/n2/b.JPEG", "val/n1/c.JPEG", "val/n2/d.JPEG")
    )
    assert tree.test is not None
    assert tree.test.labels == (0, 1)


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
    with pytest.raises(DataError, match=r"data.root must be a folder, got .*which cannot be opened \(embedded null"):
        find_image_tree(Path("a\0b"))
