"""A tiny encoder and labelled images for the probe tests."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.label_maps import LabelMaps
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject

SIDE = 8
PATCH = 4


class FakeEncoder(nn.Module):
    """Patches times a fixed random matrix; in training mode a dropout would change every feature.

    Attributes:
        seen: images that `last_layers` was given so far.
    """

    def __init__(self, embed_dim: int = 6, num_channels: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, num_channels * PATCH**2, embed_dim, generator=generator))
        self.dropout = nn.Dropout(0.5)
        self.seen = 0

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        self.seen += len(images)
        patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # [B, C, Gh, Gw, p, p]
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # [B, N, C * p * p]
        layers = [torch.tanh(patches @ weight) for weight in self.weight[-num_layers:]]
        return self.dropout(torch.cat(layers, dim=-1))


def labelled_images(num_images: int, num_classes: int, seed: int, side: int = SIDE) -> ImageSplit:
    """Noisy images [n, 3, side, side] whose class is a fixed pattern under the noise; classes are equally frequent."""
    patterns = torch.randint(0, 256, (num_classes, 3, side, side), generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % num_classes
    noise = torch.randint(0, 256, (num_images, 3, side, side), generator=generator)
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


def splits_with_maps() -> ProbeSplits:
    """Images with labels and label maps."""

    def mapped(split: ImageSplit) -> ImageSplit:
        pixels = torch.zeros(len(split), *split.images.shape[2:], dtype=torch.uint8)
        return replace(split, maps=LabelMaps(pixels, ("a", "b")))

    splits = make_splits()
    assert splits.test is not None
    return replace(splits, train=mapped(splits.train), validation=mapped(splits.validation), test=mapped(splits.test))


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
