"""Divides a data set: what is trained on, what every choice is made on, and what is scored once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from jepa_lab.data.base import ImageData, ImageDataset, ImageSplit
from jepa_lab.data.folders.scan import shortened
from jepa_lab.data.image_files import label_tensor
from jepa_lab.data.splits import limit_images, split_off, split_validation
from jepa_lab.errors import DataError, Key, Problem


@dataclass(frozen=True)
class DivisionPlan:
    """What is cut from the training images where a data set has no such images of its own.

    Attributes:
        test_fraction: share of labelled training images that becomes the test split; 0 for none.
        validation_fraction: share of what is left that becomes the validation split.
        max_images: most images of each split, training and validation counted together; None for all.
        seed: of the draw of validation images.
        test_seed: of every other draw: a test split that is cut, and the choice of `max_images`.
    """

    test_fraction: float
    validation_fraction: float
    max_images: int | None
    seed: int
    test_seed: int


class Division(NamedTuple):
    """The splits of a data set.

    Attributes:
        test: None where there is none.
        test_is_cut: whether it was cut from the training images.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit | None
    test_is_cut: bool

    @property
    def splits(self) -> tuple[ImageSplit, ImageSplit, ImageSplit | None]:
        """Training, validation and test split."""
        return self.train, self.validation, self.test


def divide(data: ImageData, plan: DivisionPlan) -> Division:
    """The splits of a data set, each in the original order and with no image in two of them.

    The test split comes first: it does not depend on `max_images`, nor on how much is validation.

    Raises:
        DataError: a class, or a data set without labels, has too few images. ConfigError: `max_images` would lose one.
    """
    train, test = data.train, data.test
    cuts_test = test is None and train.labels is not None and plan.test_fraction > 0
    if cuts_test:
        _check_enough_of_each(train, plan, data)
        train, test = split_off(train, plan.test_fraction, plan.test_seed)
    if plan.max_images is not None:
        train = limit_images(train, plan.max_images, plan.test_seed)
        test = None if test is None else limit_images(test, plan.max_images, plan.test_seed)
    if data.validation is None:
        train, validation = split_validation(train, plan.validation_fraction, plan.seed, data.class_names)
        return Division(train, validation, test, cuts_test)
    validation = data.validation
    if plan.max_images is not None:
        validation = limit_images(validation, plan.max_images, plan.test_seed)
    return Division(train, validation, test, cuts_test)


def _check_enough_of_each(train: ImageSplit, plan: DivisionPlan, data: ImageData) -> None:
    """Every class must have an image in every split that is cut."""
    assert train.labels is not None
    needed, splits = (3, "training, validation, test") if data.validation is None else (2, "training, test")
    classes, counts = np.unique(train.labels.numpy(), return_counts=True)
    if counts.min() >= needed:
        return
    label, count = int(classes[counts.argmin()]), int(counts.min())
    name = data.class_names[label] if data.class_names else str(label)
    raise DataError(
        f"class {name!r} has {count} image{'s' if count > 1 else ''}, but with ",
        Key("test_fraction"),
        f"={plan.test_fraction} it needs at least {needed} ({splits}); add images of the class or remove it, or set ",
        Key("test_fraction"),
        "=0 to do without a test split",
        keys=["root"],
    )


def numbered(dataset: ImageDataset) -> ImageData | None:
    """A data set of files whose images are their own numbers: it is divided as the images will be, undecoded.

    Returns:
        None for a data set in one piece, whose labels are not known before it is loaded.
    """
    files = dataset.image_files()
    if files is None:
        return None
    train, test, validation = (
        None if part is None else numbers(len(part.files), label_tensor(part))
        for part in (files.train, files.test, files.validation)
    )
    assert train is not None
    return ImageData(train, test, files.class_names, "", files.source, validation=validation)


def numbers(count: int, labels: torch.Tensor | None) -> ImageSplit:
    """Images that are their own numbers, [count, 1, 1, 1]."""
    return ImageSplit(torch.arange(count)[:, None, None, None], labels)


def notes_on(division: Division, plan: DivisionPlan, class_names: tuple[str, ...]) -> Iterator[Problem]:
    """What a user should know about the splits: a test split that was cut, and classes that a split lacks."""
    test = division.test
    if test is not None and division.test_is_cut:
        share = f"{plan.test_fraction:.0%} of the images of each class ({len(test):,} images)"
        yield Problem(
            f"there is no test split, so {share} are kept from training as one (",
            Key("test_fraction"),
            ", ",
            Key("split_seed", "data"),
            ")",
        )
    for name, split, consequence in (
        ("test", test, "its accuracy says nothing about them"),
        ("validation", division.validation, "no choice is made with them"),
    ):
        if split is None or split.labels is None:
            continue
        there = set(split.labels.unique().tolist())
        missing = [each for label, each in enumerate(class_names) if label not in there]
        if missing:
            which = f"{len(missing):,} of {len(class_names):,} classes"
            yield Problem(f"the {name} split has no images of {which}, so {consequence}: {shortened(missing)}")


@dataclass(frozen=True)
class SplitCounts:
    """How many images each split has; no test split is None."""

    training: int
    validation: int
    test: int | None

    @classmethod
    def of(cls, train: ImageSplit, validation: ImageSplit, test: ImageSplit | None) -> SplitCounts:
        return cls(len(train), len(validation), None if test is None else len(test))

    def sentence(self) -> str:
        """`480 training, 60 validation, 120 test`."""
        test = "no test split" if self.test is None else f"{self.test:,} test"
        return f"{self.training:,} training, {self.validation:,} validation, {test}"
