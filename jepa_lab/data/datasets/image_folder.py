"""Image folder: your own images, with labels from folder names or without labels."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path

from jepa_lab.data.base import (
    DATASETS,
    USUAL_FOLDERS,
    FolderChoice,
    ImageData,
    ImageDataset,
    ImageFileSet,
)
from jepa_lab.data.folders.tree import ImageTree, find_image_tree
from jepa_lab.data.image_files import load_files
from jepa_lab.errors import ConfigError, Key
from jepa_lab.registry import ComponentParams


@DATASETS.register(
    "image_folder",
    summary="your images in data.root: train/<class>/ with test/ or val/, <class>/ alone, or any folders, unlabelled",
    source="the layout of torchvision.datasets.ImageFolder",
)
class ImageFolder(ImageDataset):
    """Decodes a folder of images to RGB: `find_image_tree` states the layout, `decode_image` the rules.

    Raises:
        ConfigError: without `root`.
    """

    Params = ComponentParams
    num_channels = 3

    def __init__(self, params: ComponentParams, root: Path | None, image_size: int) -> None:
        super().__init__(params, root, image_size)
        if root is None:
            raise ConfigError(
                Key("root"),
                " is required for ",
                Key("dataset"),
                "=image_folder, got none; set ",
                Key("root"),
                "=FOLDER to a folder with train/<class>/ and test/<class>/ images, with <class>/ images, or with "
                "images alone",
            )
        self.folder = root
        self.choice = USUAL_FOLDERS

    def with_folders(self, choice: FolderChoice) -> ImageFolder:
        other = copy.copy(self)
        other.choice = choice
        vars(other).pop("_tree", None)  # found by another choice
        return other

    def describe(self) -> str:
        usual = self.choice == USUAL_FOLDERS
        return super().describe() + ("" if usual else f" {self.choice.labels} {self.choice.validation_split}")

    @cached_property
    def _tree(self) -> ImageTree:
        return find_image_tree(self.folder, self.choice)

    def num_train_images(self) -> int:
        return len(self._tree.train.files)

    def image_files(self) -> ImageFileSet:
        tree = self._tree
        return ImageFileSet(
            tree.train,
            tree.test,
            tree.class_names,
            str(self.folder),
            root=self.folder,
            validation=tree.validation,
            findings=tree.findings,
        )

    def load(self) -> ImageData:
        return load_files(self.image_files(), self.image_size)
