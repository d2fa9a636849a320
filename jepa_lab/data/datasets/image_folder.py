"""Image folder: your own images, with labels from folder names or without labels."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageFileSet
from jepa_lab.data.image_files import load_files
from jepa_lab.data.image_tree import ImageTree, find_image_tree
from jepa_lab.errors import ConfigError
from jepa_lab.registry import ComponentParams


@DATASETS.register(
    "image_folder",
    summary="your images: train/<class>/ and test|val/<class>/ in data.root, or a flat folder without labels",
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
                "data.root is required for data.dataset=image_folder, got none; set data.root=FOLDER to a "
                "folder with train/<class>/ and test/<class>/ images, or with images directly in it"
            )
        self.folder = root

    @cached_property
    def _tree(self) -> ImageTree:
        return find_image_tree(self.folder)

    def num_train_images(self) -> int:
        return len(self._tree.train.files)

    def image_files(self) -> ImageFileSet:
        tree = self._tree
        return ImageFileSet(tree.train, tree.test, tree.class_names, str(self.folder), root=self.folder)

    def load(self) -> ImageData:
        return load_files(self.image_files(), self.image_size)
