"""Stratified parts of a split, and the statistics that normalise images.

All draws use numpy's `RandomState`, whose streams are frozen: a split is the same on every machine and with
every version.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import Images
from jepa_lab.errors import ConfigError, DataError, Key

_FRACTION = Key("validation_fraction", "data")  # there alone: the probe's own images are split as the run's are
STATISTICS_CHUNK_PIXELS = 1 << 24


def split_validation(
    split: ImageSplit, fraction: float, seed: int, class_names: tuple[str, ...] = ()
) -> tuple[ImageSplit, ImageSplit]:
    """Divide a split into training and validation, each in the original order.

    With labels the parts are stratified: the validation part has round(n * fraction) images, shared out in
    proportion to the classes, and every class keeps at least one image in both parts. Without labels it is a
    random choice.

    Args:
        fraction: share of the images that goes to validation, in (0, 1).
        seed: `data.split_seed`; the only source of randomness.
        class_names: only for messages.
    Returns:
        (training, validation).
    Raises:
        DataError: if a class, or a data set without labels, has fewer than two images.
    """
    if split.labels is None:
        if len(split) < 2:
            raise DataError(_FRACTION, f"={fraction} needs at least 2 training images, got {len(split)}; add images")
    else:
        classes, counts = np.unique(split.labels.numpy(), return_counts=True)
        if counts.min() < 2:
            label = int(classes[counts.argmin()])
            name = class_names[label] if class_names else str(label)
            raise DataError(
                f"class {name!r} has 1 training image, but ",
                _FRACTION,
                f"={fraction} needs at least 2 (one in training, one in validation); add images of the class or remove "
                "it",
                keys=["root", "dataset"],
            )
    return split_off(split, fraction, seed)


def split_off(split: ImageSplit, fraction: float, seed: int) -> tuple[ImageSplit, ImageSplit]:
    """The parts of `split_validation`, of a split whose classes have two images each."""
    assert 0 < fraction < 1, fraction
    wanted = round(len(split) * fraction)
    if split.labels is None:
        chosen = _random_sample(len(split), min(max(wanted, 1), len(split) - 1), seed)
    else:
        num_classes = len(split.labels.unique())
        wanted = min(max(wanted, num_classes), len(split) - num_classes)
        chosen = stratified_sample(split.labels, wanted, seed, keep_one=True)
    is_chosen = torch.zeros(len(split), dtype=torch.bool)
    is_chosen[chosen] = True
    return split.subset(torch.nonzero(~is_chosen).flatten()), split.subset(chosen)


def limit_images(split: ImageSplit, max_images: int, seed: int) -> ImageSplit:
    """A stratified subset of `max_images` images in the original order; a split that is no larger stays.

    Raises:
        ConfigError: if there are fewer images than classes: a class would be lost.
    """
    if max_images >= len(split):
        return split
    if split.labels is None:
        return split.subset(_random_sample(len(split), max_images, seed))
    num_classes = len(split.labels.unique())
    if max_images < num_classes:
        raise ConfigError(
            Key("max_images"),
            f" must be at least the number of classes ({num_classes}), so that none is lost, "
            f"got {max_images}; raise it",
        )
    return split.subset(stratified_sample(split.labels, max_images, seed, keep_one=False))


def stratified_sample(labels: Tensor, count: int, seed: int, *, keep_one: bool) -> Tensor:
    """Choose `count` images at random, each class in proportion to its size and with at least one image.

    Args:
        labels: [n] int64.
        keep_one: whether every class also leaves at least one image behind.
    Returns:
        Indices in increasing order, [count] int64.
    """
    generator = _frozen_stream(seed)
    label_values = labels.numpy()
    classes, class_counts = np.unique(label_values, return_counts=True)
    shares = _shares(class_counts, count, class_counts - 1 if keep_one else class_counts)
    chosen = [
        generator.permutation(np.flatnonzero(label_values == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def _shares(class_counts: np.ndarray, total: int, maximum: np.ndarray) -> np.ndarray:
    """Share out `total` in proportion to the classes, 1 <= share <= maximum (largest remainder)."""
    assert len(class_counts) <= total <= maximum.sum(), (class_counts, total)
    quota = class_counts * (total / class_counts.sum())
    shares = np.clip(np.floor(quota).astype(np.int64), 1, maximum)
    while shares.sum() < total:
        shares[np.argmax(np.where(shares < maximum, quota - shares, -np.inf))] += 1
    while shares.sum() > total:
        shares[np.argmin(np.where(shares > 1, quota - shares, np.inf))] -= 1
    return shares


def _frozen_stream(seed: int) -> np.random.RandomState:
    """A stream that no version of numpy may change (NEP 19), from a seed of any size."""
    return np.random.RandomState(np.random.MT19937(seed))


def _random_sample(num_images: int, count: int, seed: int) -> Tensor:
    """`count` of `num_images` indices at random, in increasing order, [count] int64."""
    return torch.from_numpy(np.sort(_frozen_stream(seed).permutation(num_images)[:count]))


def channel_statistics(images: Images) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of images scaled to [0, 1]; see `histogram_statistics`.

    Args:
        images: [n, C, H, W] uint8.
    """
    return histogram_statistics(channel_histogram(images))


def channel_histogram(images: Images) -> Tensor:
    """How often each of the 256 values occurs in each channel, [C, 256] int64 on the CPU.

    Args:
        images: [n, C, H, W] uint8.
    """
    _, channels, height, width = images.shape
    histogram = torch.zeros(channels, 256, dtype=torch.int64)
    for part in images.split(max(1, STATISTICS_CHUNK_PIXELS // (channels * height * width))):
        add_to_histogram(histogram, part)
    return histogram


def add_to_histogram(histogram: Tensor, images: Tensor) -> None:
    """Count more images [m, C, H, W] uint8 into a histogram [C, 256] int64, in place."""
    for channel in range(len(histogram)):
        histogram[channel] += torch.bincount(images[:, channel].flatten(), minlength=256).cpu()


def histogram_statistics(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of images scaled to [0, 1].

    Exact counts, then float64: the result does not depend on the order of the images, on the device, or on how
    they were read.

    Args:
        histogram: [C, 256] int64, see `channel_histogram`.
    Returns:
        Mean and (population) standard deviation, each [C] float32 on the CPU.
    Raises:
        DataError: if a channel has the same value everywhere.
    """
    share = histogram.to(torch.float64) / histogram.sum(dim=1, keepdim=True)  # [C, 256]
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value  # [C]
    std = (share * (value - mean[:, None]).square()).sum(dim=1).sqrt()  # [C]
    constant = (histogram > 0).sum(dim=1) < 2
    if constant.any():
        channel = int(constant.nonzero()[0])
        pixel = int(histogram[channel].argmax())
        raise DataError(
            f"channel {channel} of the training images has the value {pixel} everywhere, so its standard "
            "deviation is 0; use images that differ, or set ",
            Key("channel_mean", "data"),
            " and ",
            Key("channel_std", "data"),
        )
    return mean.to(torch.float32), std.to(torch.float32)
