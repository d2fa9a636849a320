"""Labels from the names of folders: where the classes are, and what is said when nothing fits."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from jepa_lab.data.base import ImageFiles, LabelSource
from jepa_lab.data.folders.roles import SplitFolders, find_split_folders
from jepa_lab.data.folders.scan import (
    IMAGE_EXTENSIONS,
    Contents,
    as_text,
    contents_below,
    counted,
    endings,
    files_below,
    folders_in,
    images_in,
    shortened,
)
from jepa_lab.errors import DataError, Key, Problem

LAYOUTS = (
    "layouts that are read: ROOT/train/<class>/IMAGES with ROOT/test/<class>/IMAGES, ROOT/<class>/IMAGES, or images "
    "at any depth, without labels"
)

_OR_WITHOUT_LABELS = Problem(", or set ", Key("labels"), "=none to train without labels")


@dataclass(frozen=True)
class Part:
    """The images of one split.

    Attributes:
        class_folders: names of the folders whose order is that of the labels; empty without labels.
        unread: pictures beside them whose format is not read.
        note: how the folders were understood, where that is not obvious.
    """

    files: ImageFiles
    class_folders: tuple[str, ...]
    unread: tuple[Path, ...]
    note: Problem | None = None


def training_part(root: Path, folders: SplitFolders, labels: LabelSource) -> Part:
    """The images that may be trained on, with labels if `data.labels` and the folders allow it.

    Raises:
        DataError: there are no images, or they have no labels where labels were asked for.
    """
    if folders.train is None:
        return _whole_root(root, folders, labels)
    if labels == "none":
        return _unlabelled(contents_below(folders.train), folders.train)
    names = folders_in(folders.train)
    if names:
        _check_several(folders.train, names)
        return labelled_part(folders.train, names, otherwise=_OR_WITHOUT_LABELS)
    siblings = [name for name in folders.others if images_in(root / name)]
    if siblings and images_in(folders.train):
        return _train_is_a_class(root, folders, siblings, labels)
    if labels == "folders":
        raise DataError(
            Key("labels"),
            f"=folders needs class folders in {folders.train}, which has none; add them, or set ",
            Key("labels"),
            "=none to train without labels",
            keys=["root"],
        )
    why = f"{as_text(folders.train.name)}/ has no class folders: the images have no labels"
    return _unlabelled(contents_below(folders.train), folders.train, Problem(why))


def _check_several(folder: Path, names: tuple[str, ...]) -> None:
    if len(names) == 1:
        raise DataError(
            f"{folder} has the single class folder {names[0]!r}, and one class cannot be probed; set ",
            Key("labels"),
            "=none to train without labels, or add the other classes",
            keys=["root"],
        )


def _train_is_a_class(root: Path, folders: SplitFolders, siblings: list[str], labels: LabelSource) -> Part:
    """A class may be called "train", beside a car and a bus."""
    assert folders.train is not None
    name = folders.train.name
    if labels == "folders" and not folders.held_out():
        return labelled_part(root, tuple(sorted((name, *siblings))), otherwise=_OR_WITHOUT_LABELS)
    beside = shortened([f"{as_text(each)}/" for each in siblings])
    raise DataError(
        f"{folders.train} holds images and no class folders, and so do folders beside it: {beside}; set ",
        Key("labels"),
        f"=folders if {name}/ is one of the classes, else move those folders elsewhere",
        keys=["root"],
    )


def _whole_root(root: Path, folders: SplitFolders, labels: LabelSource) -> Part:
    """Without `train`, the training images are all outside the folders of the other splits."""
    if labels == "none":
        return _unlabelled(contents_below(root, folders.held_out()), root)
    if labels == "folders":
        return _root_classes(root, folders)
    found = contents_below(root, folders.held_out())
    if not found.images:
        raise _nothing_fits(root, folders, found)
    inside = {image.relative_to(root).parts[:-1] for image in found.images}
    if len(inside) > 1 and all(len(place) == 1 for place in inside):
        part = labelled_part(root, tuple(sorted(place[0] for place in inside)))
        note = Problem(
            f"there is no train/: the {len(inside)} folders are the classes, as every image lies exactly one level "
            "down; ",
            Key("labels"),
            "=none trains without labels",
            _about_empty(folders, part.class_folders),
        )
        return replace(part, unread=found.unread, note=note)
    _check_no_data_set_inside(root, folders)
    tops = {place[0] for place in inside if place}
    several = len(tops) > 1 and () not in inside
    remedy = Problem("; ", Key("labels"), "=folders takes the folders as classes") if several else ""
    why = f"there is no train/, and {_why_no_labels(inside)}: the images have no labels"
    return _unlabelled(found, root, Problem(why, remedy))


def _about_empty(folders: SplitFolders, class_folders: tuple[str, ...]) -> str:
    """A class whose download failed must not vanish without a word."""
    empty = [f"{as_text(name)}/" for name in folders.others if name not in class_folders]
    return f"; without images, and so no class: {shortened(empty)}" if empty else ""


def _why_no_labels(inside: set[tuple[str, ...]]) -> str:
    if inside == {()}:
        return "no folder holds images"
    if () in inside:
        return "some images lie beside the folders"
    if len({place[0] for place in inside}) == 1:
        return "all images lie in one folder"
    return "some images lie deeper than one level"


def _root_classes(root: Path, folders: SplitFolders) -> Part:
    names = tuple(name for name in folders.others if contents_below(root / name).images)
    if len(names) < 2:
        raise DataError(
            Key("labels"),
            f"=folders needs at least two folders with images in {root}, got {len(names)}; add the other "
            "classes, or set ",
            Key("labels"),
            "=none to train without labels",
            keys=["root"],
        )
    part = labelled_part(root, names, otherwise=_OR_WITHOUT_LABELS)
    note = Problem(
        f"there is no train/: the {len(names)} folders with images are the classes (", Key("labels"), "=folders)"
    )
    return replace(part, note=Problem(note, _about_empty(folders, names)))


def _check_no_data_set_inside(root: Path, folders: SplitFolders) -> None:
    """Pretraining on the test images of a data set one level down would be a mistake that nobody notices."""
    for name in folders.others:
        if find_split_folders(root / name).train is not None:
            raise DataError(
                f"{root} has no train/, but {root / name} has; set ",
                Key("root"),
                f"={root / name}, or ",
                Key("labels"),
                "=none to train on all images without labels",
            )


def _unlabelled(found: Contents, folder: Path, note: Problem | None = None) -> Part:
    if not found.images:
        raise _nothing_fits(folder, None, found)
    return Part(ImageFiles(found.images, None), (), found.unread, note)


def unlabelled_part(folder: Path) -> Part:
    """All images below a folder.

    Raises:
        DataError: there are none.
    """
    return _unlabelled(contents_below(folder), folder)


def labelled_part(
    folder: Path, names: tuple[str, ...], may_lack_classes: bool = False, otherwise: str | Problem = ""
) -> Part:
    """The images of class folders, each searched to any depth, ordered by class and path.

    Args:
        names: of all classes.
        may_lack_classes: whether some may have no folder here, or no images in it.
        otherwise: what the user can do beside making the folders fit, to be read after the remedy.
    Raises:
        DataError: images beside the class folders, or a class without images.
    """
    stray = images_in(folder)
    if stray:
        raise DataError(
            f"{folder} holds class folders and images beside them (such as {stray[0]!r}), which have no label; "
            "move the images into class folders or elsewhere",
            otherwise,
            keys=["root"],
        )
    files: list[Path] = []
    labels: list[int] = []
    unread: list[Path] = []
    there = folders_in(folder)
    for label, name in enumerate(names):
        if may_lack_classes and name not in there:
            continue
        found = contents_below(folder / name)
        if not (found.images or may_lack_classes):
            raise DataError(
                f"the class folder {folder / name} holds no images ({_what_is_there(found)}); "
                "add some, or remove the folder",
                otherwise,
                keys=["root"],
            )
        files += found.images
        labels += [label] * len(found.images)
        unread += found.unread
    return Part(ImageFiles(tuple(files), tuple(labels)), names, tuple(unread))


def _what_is_there(found: Contents) -> str:
    if found.unread:
        return f"but {counted(endings(found.unread))}, which is not read: convert to JPEG or PNG"
    return f"none of {', '.join(IMAGE_EXTENSIONS)}"


def class_names_of(folder_names: tuple[str, ...]) -> tuple[str, ...]:
    r"""Names that can be printed and stored: bytes of a folder's name that are not UTF-8 are written as `\xe9`."""
    return tuple(os.fsencode(name).decode("utf-8", "backslashreplace") for name in folder_names)


def check_same_classes(test_folder: Path, folder_names: tuple[str, ...]) -> None:
    """Raise DataError, naming the differences, unless a test split has the class folders of the training images."""
    check_known_classes(test_folder, folder_names)
    test_names = folders_in(test_folder)
    missing = [as_text(name) for name in folder_names if name not in test_names]
    if missing:
        raise DataError(
            f"{test_folder} lacks classes of the training images: {shortened(missing)}; restore their folders, or set ",
            Key("dataset"),
            "=image_folder",
            keys=["root"],
        )


def check_known_classes(folder: Path, folder_names: tuple[str, ...]) -> None:
    """Raise DataError, naming them, if images of a split have classes that training lacks."""
    unknown = [name for name in folders_in(folder) if name not in folder_names and contents_below(folder / name).images]
    if not unknown:
        return
    hint = ""
    for name in unknown:
        near = [known for known in folder_names if known.lower() == name.lower()]
        if near:
            hint = f" ({name!r} and {near[0]!r} differ in upper and lower case)"
            break
    raise DataError(
        f"{folder} has classes that the training images lack: {shortened([as_text(name) for name in unknown])}{hint}; "
        "name class folders alike in both, or move those away",
        keys=["root"],
    )


def _nothing_fits(root: Path, folders: SplitFolders | None, found: Contents) -> DataError:
    """Says what is there instead."""
    numbers, inside = endings(files_below(root)), folders_in(root)
    what = f"{len(inside)} folder{'s' if len(inside) != 1 else ''}"
    if numbers:
        what += f" and {numbers.total():,} file{'s' if numbers.total() != 1 else ''} ({counted(numbers)})"
    if folders is not None and folders.held_out():
        what += f", and no train/ beside {' and '.join(f'{folder.name}/' for folder in folders.held_out())}"
    elif folders is not None and inside:
        what += ", and no train/"
    if not (numbers or inside):
        what = "nothing in it"
    remedy = "convert the pictures to JPEG or PNG; " if found.unread else ""
    return DataError(f"{root} holds no images to train on: found {what}; {remedy}{LAYOUTS}", keys=["root"])
