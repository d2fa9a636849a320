"""Everything that is measured on a frozen encoder, and on raw pixels by the same code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import Images
from jepa_lab.data.splits import stratified_sample
from jepa_lab.errors import ConfigError, DataError
from jepa_lab.probes.features import Autocast, Labelled, extract_features, raw_pixel_features
from jepa_lab.probes.knn import KnnResult, check_neighbors, knn_probe
from jepa_lab.probes.logistic import logistic_probe
from jepa_lab.probes.result import ProbeResult
from jepa_lab.probes.settings import ProbeSettings


@dataclass(frozen=True)
class ProbeSplits:
    """The images that a probe is fitted, chosen and scored on.

    Attributes:
        test: None where there is no labelled test split; then the test fields of the results are None.
        class_names: in the order of the labels.
        mean, std: [C] of pixels in [0, 1], those that the encoder was trained with.
    Raises:
        DataError: if there are no labels, fewer than two classes, or a class without images in training or validation.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit | None
    class_names: tuple[str, ...]
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise DataError(
                f"a probe tells classes apart, but the data have {len(self.class_names)}; "
                "set probe.data to a labelled data set"
            )
        _check_classes("training", self.train, self.class_names, "lower data.validation_fraction")
        _check_classes("validation", self.validation, self.class_names, "raise data.validation_fraction")

    def check(self, settings: ProbeSettings) -> None:
        """Refuse settings that these images do not allow; needs no features.

        Raises:
            ConfigError: too few images for `knn_neighbors`, or too few of them allowed by `online_max_images`.
        """
        check_neighbors(settings, len(self.train))
        self.online_train(settings)

    def online_train(self, settings: ProbeSettings) -> ImageSplit:
        """The training images of the cheap probe: always the same, each class in proportion to its size.

        Raises:
            ConfigError: if `settings.online_max_images` is smaller than the number of classes.
        """
        if len(self.train) <= settings.online_max_images:
            return self.train
        if settings.online_max_images < len(self.class_names):
            raise ConfigError(
                f"probe.online_max_images must be at least the number of classes ({len(self.class_names)}), "
                f"got {settings.online_max_images}; raise it"
            )
        labels = _labels_of(self.train)
        return self.train.subset(stratified_sample(labels, settings.online_max_images, seed=0, keep_one=False))


@dataclass(frozen=True)
class EncoderEvaluation:
    """The probes of one set of features."""

    logistic: ProbeResult
    knn: KnnResult

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"logistic": self.logistic.to_dict(), "knn": self.knn.to_dict()}


def evaluate_encoder(
    encoder: nn.Module,
    splits: ProbeSplits,
    settings: ProbeSettings,
    device: torch.device,
    autocast: Autocast = contextlib.nullcontext,
) -> EncoderEvaluation:
    """Probe an encoder; its features are extracted once.

    Args:
        encoder: on `device`, with `last_layers(images, num_layers)`; which encoder of a run it is
            (`settings.encoder`) is the caller's choice.
    """

    def features(images: Images) -> Tensor:
        return extract_features(
            encoder, images, splits.mean, splits.std, settings.num_layers, settings.batch_size, device, autocast
        )

    return _evaluate(features, splits, settings)


def evaluate_raw_pixels(splits: ProbeSplits, settings: ProbeSettings) -> EncoderEvaluation:
    """The control: the same probes, splits and grid of C, with pixels (at most 32x32) instead of features."""
    return _evaluate(raw_pixel_features, splits, settings)


def _evaluate(features: Callable[[Images], Tensor], splits: ProbeSplits, settings: ProbeSettings) -> EncoderEvaluation:
    """Probe what `features` makes of images: [n, C, H, W] uint8 -> [n, D'] float32."""

    def labelled(split: ImageSplit) -> Labelled:
        return features(split.images), _labels_of(split)

    train, validation = labelled(splits.train), labelled(splits.validation)
    test = None if splits.test is None else labelled(splits.test)
    return EncoderEvaluation(
        logistic=logistic_probe(train, validation, test, settings, splits.class_names),
        knn=knn_probe(train, validation, test, settings),
    )


def _labels_of(split: ImageSplit) -> Tensor:
    """[n] int64 on the CPU.

    Raises:
        DataError: if there are none.
    """
    if split.labels is None:
        raise DataError("a probe needs labels, and these images have none; set probe.data to a labelled data set")
    return split.labels.cpu()


def _check_classes(name: str, split: ImageSplit, class_names: tuple[str, ...], remedy: str) -> None:
    """Every class must have an image.

    Raises:
        DataError: naming the classes that have none.
    """
    present = set(_labels_of(split).unique().tolist())
    missing = [repr(name) for index, name in enumerate(class_names) if index not in present]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise DataError(
            f"the probe's {name} split ({len(split)} images) has no image of class {shown}; "
            f"{remedy}, or add images of that class"
        )
