"""What a data set is: images as uint8 tensors, labels where there are any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from jepa_lab.data.images import Images
from jepa_lab.data.label_maps import LabelMaps
from jepa_lab.errors import ConfigError, Key, Problem
from jepa_lab.registry import Component, ComponentParams, Registry


@dataclass(frozen=True)
class ImageSplit:
    """One split of a data set.

    Attributes:
        images: [n, C, H, W] uint8: a tensor, or images that are read batch by batch.
        labels: [n] int64 class indices, or None without labels.
        positions: [n] int64 of the images in the data set's own split that they were chosen from; None for all of it.
        maps: the class of every pixel, or None without label maps.
    """

    images: Images
    labels: Tensor | None
    positions: Tensor | None = None
    maps: LabelMaps | None = None

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Tensor) -> ImageSplit:
        """The images (and labels and label maps) at `indices`, [m] int64."""
        positions = indices if self.positions is None else self.positions[indices]
        labels = None if self.labels is None else self.labels[indices]
        maps = None if self.maps is None else self.maps[indices]
        return ImageSplit(self.images[indices], labels, positions, maps)


@dataclass(frozen=True)
class ImageFiles:
    """The image files of one split, in a fixed order.

    Attributes:
        labels: one class index a file, or None without labels.
        masks: the file of each one's label map, or None without label maps.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    masks: tuple[Path, ...] | None = None


LabelSource = Literal["auto", "folders", "none"]
ValidationSplit = Literal["fraction", "folder"]


@dataclass(frozen=True)
class FolderChoice:
    """How folders of images are understood, where there is more than one way.

    Attributes:
        labels: whether the names of folders are classes: `data.labels`.
        validation_split: whether a folder of validation images is used as such: `data.validation_split`.
    """

    labels: LabelSource = "auto"
    validation_split: ValidationSplit = "fraction"


USUAL_FOLDERS = FolderChoice()
"""What a data set does that nobody told otherwise."""


@dataclass(frozen=True)
class Findings:
    """What a user should know about the files of a data set.

    Attributes:
        notes: sentences for the run's log: how the folders were understood, and what was left alone; settings in
            them are keys, as in the text of an error.
        unread: how many files have an ending that no reader here knows, by ending (".heic").
    """

    notes: tuple[Problem, ...] = ()
    unread: tuple[tuple[str, int], ...] = ()


NOTHING_FOUND = Findings()


@dataclass(frozen=True)
class ImageFileSet:
    """A data set of image files, before anything is decoded.

    Attributes:
        test: None where there is no labelled test split.
        class_names: one a class, in the order of the labels; empty without labels.
        source: where the data came from, in words or as a path.
        native_size: height and width that files are decoded at and then resized from; None decodes at the size
            that is asked for.
        root: folder that names of files are told relative to; None for the deepest folder that holds all.
        validation: the data set's own validation images, where they were asked for; None leaves it to be cut from
            the training images.
        findings: what was found about the files beyond these.
        map_names: of the classes of label maps, in their order; empty without label maps.
    """

    train: ImageFiles
    test: ImageFiles | None
    class_names: tuple[str, ...]
    source: str
    native_size: int | None = None
    root: Path | None = None
    validation: ImageFiles | None = None
    findings: Findings = NOTHING_FOUND
    map_names: tuple[str, ...] = ()

    def parts(self) -> tuple[ImageFiles, ...]:
        """Training, test and validation images, those that there are, in the order in which pixels are held."""
        return tuple(part for part in (self.train, self.test, self.validation) if part is not None)


class SkippedImage(NamedTuple):
    """A file that was left out.

    Attributes:
        name: relative to the data set's folder. problem: why, in words.
    """

    name: str
    problem: str


@dataclass(frozen=True)
class ImageData:
    """A loaded data set.

    Attributes:
        test: None where there is no labelled test split.
        class_names: one a class, in the order of the labels; empty without labels.
        digest: hexadecimal digest (at most 36 characters) that changes when images or labels change.
        source: where the data came from, in words or as a path.
        skipped: files that `on_bad_image=skip` left out.
        validation: the data set's own validation images; None leaves it to be cut from the training images.
    """

    train: ImageSplit
    test: ImageSplit | None
    class_names: tuple[str, ...]
    digest: str
    source: str
    skipped: tuple[SkippedImage, ...] = ()
    validation: ImageSplit | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class ImageDataset(Component[Path | None], ABC):
    """Finds and decodes a data set.

    Args:
        params: the data set's own `Params`; `check` gets the root.
        root: the folder that holds the files, or None where none was given.
        image_size: height and width to deliver, in pixels.
    Raises:
        ConfigError: if `root` is given to a data set that has no files.
    """

    num_channels: int
    needs_files: bool = True

    def __init__(self, params: ComponentParams, root: Path | None, image_size: int) -> None:
        if root is not None and not self.needs_files:
            raise ConfigError(
                Key("root"),
                f" must be left out for {type(self).__name__}, which reads no files, got {str(root)!r}; remove it, or "
                "set ",
                Key("dataset"),
                "=image_folder to read your own images",
            )
        self.params = params
        self.root = root
        self.image_size = image_size

    def with_folders(self, choice: FolderChoice) -> ImageDataset:
        """The same data set with its folders understood in another way.

        Raises:
            ConfigError: it is not read from folders of the user's own, so that there is nothing to choose.
        """
        for key, value, default in (
            ("labels", choice.labels, USUAL_FOLDERS.labels),
            ("validation_split", choice.validation_split, USUAL_FOLDERS.validation_split),
        ):
            if value != default:
                raise ConfigError(
                    Key(key),
                    f" must be {default} for {type(self).__name__}, whose splits and labels are its own, "
                    f"got {value}; remove it, or set ",
                    Key("dataset"),
                    "=image_folder to read your own images",
                )
        return self

    def describe(self) -> str:
        """Names the data set with every choice that its files depend on, for caches."""
        return f"{type(self).__name__} {self.params.model_dump_json()}"

    @abstractmethod
    def num_train_images(self) -> int:
        """How many training images there are, without decoding them.

        Raises:
            DataError: if the files are missing: which files to put where, and which pipelines need none.
        """

    def num_test_images(self) -> int | None:
        """How many images the data set's own test split has, without decoding files; None where there is none.

        Raises:
            DataError: as for `num_train_images`.
        """
        files = self.image_files()
        if files is None:
            test = self.load().test
            return None if test is None else len(test)
        return None if files.test is None else len(files.test.files)

    def has_labels(self) -> bool:
        """Whether the training images have labels.

        Raises:
            DataError: as for `num_train_images`.
        """
        files = self.image_files()
        return (self.load().train if files is None else files.train).labels is not None

    def image_files(self) -> ImageFileSet | None:
        """The files, for a data set that is a file an image (it can stream); None for one that comes in one piece.

        Raises:
            DataError: if the files are missing.
        """
        return None

    @abstractmethod
    def load(self) -> ImageData:
        """Read, decode and resize everything.

        Raises:
            DataError: missing files, or an image that cannot be decoded (named).
        """


DATASETS: Registry[ImageDataset] = Registry("dataset", ImageDataset)
