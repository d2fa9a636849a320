"""Labelled images with an encoder, for probes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.label_maps import LabelMaps
from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.models.hierarchy import Pyramid
from jepa_lab.models.pyramid_features import PyramidFeatures
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import ComponentParams
from jepa_lab.testing.randomness import seeded

SIDE, PATCH = 8, 4


def labelled_images(num_images: int, num_classes: int, seed: int, side: int = SIDE) -> ImageSplit:
    """Noisy images [n, 3, side, side] whose class is a fixed pattern under the noise; classes are equally frequent."""
    patterns = torch.randint(0, 256, (num_classes, 3, side, side), generator=seeded(99))
    labels = torch.arange(num_images) % num_classes
    noise = torch.randint(0, 256, (num_images, 3, side, side), generator=seeded(seed))
    return ImageSplit((0.25 * patterns[labels] + 0.75 * noise).to(torch.uint8), labels)


def make_splits(num_classes: int = 3, side: int = SIDE) -> ProbeSplits:
    """90, 45 and 60 images of `num_classes` classes."""
    return ProbeSplits(
        train=labelled_images(90, num_classes, seed=1, side=side),
        validation=labelled_images(45, num_classes, seed=2, side=side),
        test=labelled_images(60, num_classes, seed=3, side=side),
        class_names=tuple(f"class{index}" for index in range(num_classes)),
        mean=torch.tensor([0.5, 0.4, 0.3]),
        std=torch.tensor([0.2, 0.3, 0.4]),
    )


def with_maps(split: ImageSplit, seed: int = 5) -> ImageSplit:
    """Labelled images of 8 x 8 pixels, with a random class for each pixel of four."""
    pixels = torch.randint(0, 4, (len(split), SIDE, SIDE), generator=seeded(seed), dtype=torch.uint8)
    return replace(split, maps=LabelMaps(pixels, ("ground", "a", "b", "c")))


def splits_with_maps() -> ProbeSplits:
    """Images with labels and label maps."""
    splits = make_splits()
    assert splits.test is not None
    train, validation, test = map(with_maps, (splits.train, splits.validation, splits.test))
    return replace(splits, train=train, validation=validation, test=test)


def with_pyramid(encoder: VisionTransformer) -> PyramidFeatures:
    """An encoder under a learned pyramid of 2x2 cells and 1, both read."""
    conv = DOWNSAMPLINGS.get("conv").component(ComponentParams(), encoder.size.embed_dim)
    initialize_weights(conv, seeded(1))
    pyramid = Pyramid([encoder.grid, encoder.grid.coarser()], [conv], skip_connections=True)
    return PyramidFeatures(encoder, pyramid.requires_grad_(False), (1, 2))


def make_subject(encoder: nn.Module | None, splits: ProbeSplits | None = None, **changes: Any) -> Subject:
    """An encoder, or raw pixels, on the splits."""
    settings: dict[str, Any] = {
        "num_layers": 1,
        "depth": 4,
        "patch_size": PATCH,
        "batch_size": 16,
        "device": torch.device("cpu"),
        "seed": 0,
        "scratch": Path(tempfile.gettempdir()),
    }
    return Subject(splits or make_splits(), encoder, **(settings | changes))
