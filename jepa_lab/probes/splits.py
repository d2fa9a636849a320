"""The labelled images that probes are fitted, chosen and scored on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.splits import stratified_sample
from jepa_lab.errors import ConfigError, DataError, Key


@dataclass(frozen=True)
class ProbeSplits:
    """The images that a probe is fitted, chosen and scored on.

    Attributes:
        test: None where there is no labelled test split; then the test fields of the results are None.
        class_names: in the order of the labels.
        mean, std: [C] of pixels in [0, 1], those that the encoder was trained with.
    Raises:
        DataError: if there are neither labels nor label maps; or labels of fewer than two classes, or a class without
            images in training. Validation and test may lack some: their accuracies then say nothing about these
            classes.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit | None
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if self.train.maps is not None and not self.has_labels:
            return
        if len(self.class_names) < 2:
            raise DataError(
                f"a probe tells classes apart, but the data have {len(self.class_names)}; "
                "set probe.data to a labelled data set"
            )
        _check_classes(self.train, self.class_names)
        labels_of(self.validation)

    @property
    def has_labels(self) -> bool:
        """Whether whole images have a class; if not, their pixels have."""
        return self.train.labels is not None

    def online_train(self, max_images: int) -> ImageSplit:
        """The training images of the cheap probe: always the same, each class in proportion to its size.

        Args:
            max_images: `probe.online_max_images`.
        Raises:
            ConfigError: if that is smaller than the number of classes.
        """
        if len(self.train) <= max_images:
            return self.train
        if max_images < len(self.class_names):
            raise ConfigError(
                Key("online_max_images", "probe"),
                f" must be at least the number of classes ({len(self.class_names)}), got {max_images}; raise it",
            )
        return self.train.subset(stratified_sample(labels_of(self.train), max_images, seed=0, keep_one=False))


def labels_of(split: ImageSplit) -> Tensor:
    """[n] int64 on the CPU.

    Raises:
        DataError: if there are none.
    """
    if split.labels is None:
        raise DataError("a probe needs labels, and these images have none; set probe.data to a labelled data set")
    return split.labels.cpu()


def _check_classes(split: ImageSplit, class_names: tuple[str, ...]) -> None:
    """Every class must have a training image.

    Raises:
        DataError: naming the classes that have none.
    """
    present = set(labels_of(split).unique().tolist())
    missing = [repr(name) for index, name in enumerate(class_names) if index not in present]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise DataError(
            f"the probe's training split ({len(split)} images) has no image of class {shown}; "
            "lower data.validation_fraction, or add images of that class"
        )
