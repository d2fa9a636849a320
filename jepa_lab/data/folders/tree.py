"""Finds the image files of a folder and what each is for: training, validation, test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.data.base import NOTHING_FOUND, USUAL_FOLDERS, Findings, FolderChoice, ImageFiles
from jepa_lab.data.folders.labels import (
    LAYOUTS,
    Part,
    check_known_classes,
    class_names_of,
    labelled_part,
    training_part,
    unlabelled_part,
)
from jepa_lab.data.folders.roles import SplitFolders, find_split_folders
from jepa_lab.data.folders.scan import as_text, counted, endings, folders_in, images_in, shortened
from jepa_lab.data.folders.tiny_imagenet import ANNOTATIONS, UNSORTED, annotated_images, is_annotated
from jepa_lab.errors import DataError, Key, Problem

_CHOSEN = Problem(Key("validation_split"), "=folder")


@dataclass(frozen=True)
class ImageTree:
    """What a folder holds.

    Attributes:
        test: None where there is no labelled test split.
        validation: the images of a validation folder, where it was chosen; else None.
    """

    train: ImageFiles
    test: ImageFiles | None
    class_names: tuple[str, ...]
    validation: ImageFiles | None = None
    findings: Findings = NOTHING_FOUND


def find_image_tree(root: Path, choice: FolderChoice = USUAL_FOLDERS) -> ImageTree:
    """Find the images under `root`, without opening them.

    Folders have roles by their names, in upper or lower case: `train` or `training`; `val`, `valid` or `validation`;
    `test` or `testing`. Training images are those of the first, or all of `root` outside the folders of the others.

    Labels are the names of class folders, sorted. In `train` all folders are classes, each searched to any depth;
    without folders there are no labels. Without `train`, `labels=auto` takes the folders of `root` as classes if every
    image lies exactly one level down in at least two of them, and no labels otherwise; `labels=folders` insists, and
    searches each to any depth; `labels=none` takes images at any depth and ignores the names of folders.

    The test split is `test`, else the validation folder. With both, the validation folder is left out of training and
    named in the findings; `validation_split=folder` makes it the validation split, and never the test split. Test and
    validation images may lack classes of the training images, and may have no others. Hidden files and folders are
    skipped; links are followed.

    This reads Imagenette (`val` is the test split) and ImageNet, where its test images are elsewhere. Tiny ImageNet
    is told by `val/val_annotations.txt` beside `val/images`: that file labels its images, and those in `test`, which
    have no labels, are left alone.

    Raises:
        DataError: no such folder, no images, images beside class folders, a class without images, two folders of the
            same role, classes that training lacks, a missing validation folder, annotations that do not fit the
            images, a folder that cannot be listed, or links that lead in a circle.
    """
    _check_root(root)
    folders = find_split_folders(root)
    train = training_part(root, folders, choice.labels)
    notes = [] if train.note is None else [train.note]
    notes += _left_alone(root, folders, train)
    validation = None
    if choice.validation_split == "folder":
        validation = _chosen_validation(root, folders, train, notes)
    test = _test_part(folders, train, validation is not None, notes)
    parts = [part for part in (train, test, validation) if part is not None]
    unread = [file for part in parts for file in part.unread]
    return ImageTree(
        train.files,
        None if test is None else test.files,
        class_names_of(train.class_folders),
        None if validation is None else validation.files,
        Findings((*notes, *_about_unread(root, unread)), tuple(endings(unread).most_common())),
    )


def _left_alone(root: Path, folders: SplitFolders, train: Part) -> list[Problem]:
    """What is beside `train` and has no role; without `train` it is what is trained on."""
    if folders.train is None or folders.train.name in train.class_folders:
        return []
    notes = []
    if folders.others:
        names = shortened([f"{as_text(name)}/" for name in folders.others])
        notes.append(Problem(f"left alone beside {folders.train.name}/: {names}"))
    images = images_in(root)
    if images:
        found = f"{len(images):,} image(s), such as {as_text(images[0])}"
        notes.append(Problem(f"left alone beside {folders.train.name}/: {found}"))
    return notes


def _chosen_validation(root: Path, folders: SplitFolders, train: Part, notes: list[Problem]) -> Part:
    """The validation folder as the validation split.

    Raises:
        DataError: there is none, or it has no labels where the training images have.
    """
    folder = folders.validation
    if folder is None:
        raise DataError(
            Key("validation_split"),
            f"=folder needs a folder val/, valid/ or validation/ in {root}, which has none; add it, or set ",
            Key("validation_split"),
            "=fraction",
            keys=["root"],
        )
    if not train.class_folders:
        part = unlabelled_part(folder)
    else:
        found = _labelled(folder, folders, train.class_folders)
        if found is None:
            raise DataError(
                Key("validation_split"),
                f"=folder needs class folders in {folder}, as the training images have; sort its "
                "images into them, or set ",
                Key("validation_split"),
                "=fraction",
                keys=["root"],
            )
        part = found
    notes.append(Problem(f"{folder.name}/ is the validation split (", _CHOSEN, ")"))
    return part


def _test_part(folders: SplitFolders, train: Part, validation_is_taken: bool, notes: list[Problem]) -> Part | None:
    """The test split, and notes on the folders that are none."""
    free = [] if folders.validation is None or validation_is_taken else [folders.validation]
    candidates = ([] if folders.test is None else [folders.test]) + free
    if not train.class_folders:
        why = "without labels there is no test split"
        notes += [Problem(f"{folder.name}/ is left alone: {why}") for folder in candidates]
        return None
    test = None
    for folder in candidates:
        if test is not None:
            what = f"{folder.name}/ is left out of training and of the test split; "
            notes.append(Problem(what, _CHOSEN, " uses it as the validation split"))
            continue
        test = _labelled(folder, folders, train.class_folders)
        if test is None:
            why = "it has no class folders, so its images have no labels"
            notes.append(Problem(f"{folder.name}/ is left alone: {why}"))
        elif folder == folders.validation:
            what = f"{folder.name}/ is the test split, as there is no other; "
            notes.append(Problem(what, _CHOSEN, " makes it the validation split"))
    return test


def _labelled(folder: Path, folders: SplitFolders, class_folders: tuple[str, ...]) -> Part | None:
    """The images of a test or validation folder; None where they have no labels.

    Raises:
        DataError: classes that training lacks, or class folders without any image.
    """
    if is_annotated(folder):
        return Part(annotated_images(folder, class_folders), class_folders, ())
    names = folders_in(folder)
    if not names or (names == (UNSORTED,) and _is_tiny_imagenet(folders)):
        return None
    check_known_classes(folder, class_folders)
    part = labelled_part(folder, class_folders, may_lack_classes=True)
    if not part.files.files:
        raise DataError(
            f"{folder} has class folders without images; add images, or remove {folder.name}/", keys=["root"]
        )
    return part


def _is_tiny_imagenet(folders: SplitFolders) -> bool:
    """Whose `test/images` have no labels, also where the user has sorted `val` into class folders."""
    return folders.validation is not None and (folders.validation / ANNOTATIONS).is_file()


def _about_unread(root: Path, unread: Sequence[Path]) -> list[Problem]:
    if not unread:
        return []
    example = as_text(unread[0].relative_to(root).as_posix())
    return [
        Problem(
            f"{len(unread):,} file(s) left out, whose format is not read: {counted(endings(unread))} (such as "
            f"{example}); convert them to JPEG or PNG to use them"
        )
    ]


def _check_root(root: Path) -> None:
    problem = "which is not"
    try:
        if os.path.isdir(root):
            return
        root.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character
        problem = f"which cannot be opened ({getattr(error, 'strerror', None) or error})"
    raise DataError(Key("root"), f" must be a folder, got {str(root)!r}, {problem}; {LAYOUTS}")
