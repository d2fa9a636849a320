"""Segmentation folder: your own images, with the class of every pixel."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator

from jepa_lab.data.base import DATASETS, USUAL_FOLDERS, FolderChoice, ImageData, ImageDataset, ImageFileSet
from jepa_lab.data.folders.masks import MaskedImages, find_masked_images
from jepa_lab.data.image_files import load_files
from jepa_lab.data.label_maps import IGNORED
from jepa_lab.errors import ConfigError, Key
from jepa_lab.registry import ComponentParams


@DATASETS.register(
    "segmentation_folder",
    summary="your images and label maps in data.root: images/ and masks/ (a PNG of class numbers of the same name)",
    source="the layout of ADE20K's scene parsing challenge: Zhou et al. 2017, arXiv:1608.05442",
)
class SegmentationFolder(ImageDataset):
    """Pictures in `images/`, and for each a mask in `masks/`; whole images have no classes.

    ```
    FOLDER/images/train/a.jpg   FOLDER/masks/train/a.png     FOLDER/images/a.jpg   FOLDER/masks/a.png
    FOLDER/images/test/b.jpg    FOLDER/masks/test/b.png      (all are training images)
    ```
    A mask is an 8-bit grey or palette PNG of its picture's size: 0 is the first class, 255 is left out. Where 0 means
    "no class", as in ADE20K's scene parsing masks, write 255 there first, or it counts as a class of its own.
    `find_masked_images` states the layout, `decode_picture` the rules for pictures.

    Raises:
        ConfigError: without `root`.
    """

    class Params(ComponentParams):
        classes: tuple[str, ...] = Field(
            (),
            max_length=IGNORED,
            description="Names of the classes, in the order of the numbers in the masks, from 0. None: the numbers up "
            "to the largest in any mask.",
        )

        @field_validator("classes")
        @classmethod
        def _distinct(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
            if len(set(classes)) < len(classes):
                raise ValueError(f"classes must be distinct, got {', '.join(classes)}")
            return classes

    params: Params
    num_channels = 3

    def __init__(self, params: ComponentParams, root: Path | None, image_size: int) -> None:
        super().__init__(params, root, image_size)
        if root is None:
            raise ConfigError(
                Key("root"),
                " is required for ",
                Key("dataset"),
                "=segmentation_folder, got none; set ",
                Key("root"),
                "=FOLDER to a folder with images/ and masks/",
            )
        self.folder, self.choice = root, USUAL_FOLDERS

    def with_folders(self, choice: FolderChoice) -> SegmentationFolder:
        if choice.labels == "folders":
            raise ConfigError(
                Key("labels"),
                "=folders is for folders whose names are classes, and those of segmentation_folder are none; leave ",
                Key("labels"),
                " out",
            )
        other = copy.copy(self)
        other.choice = choice
        vars(other).pop("_found", None)  # by another choice
        return other

    @cached_property
    def _found(self) -> MaskedImages:
        return find_masked_images(self.folder, self.choice.validation_split == "folder")

    def num_train_images(self) -> int:
        return len(self._found.train.files)

    def image_files(self) -> ImageFileSet:
        found = self._found
        return ImageFileSet(
            found.train,
            found.test,
            (),
            str(self.folder),
            root=self.folder,
            validation=found.validation,
            map_names=self.params.classes,
        )

    def load(self) -> ImageData:
        return load_files(self.image_files(), self.image_size)
