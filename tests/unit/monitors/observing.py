"""A tiny encoder, and images to observe through it."""

from __future__ import annotations

from typing import Any

import torch

from jepa_lab.data.images import Images
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS
from jepa_lab.maskers.sampling import MaskSampler
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.monitors.observed import Observed
from jepa_lab.positions.base import POSITIONS

GRID = Grid(4, 4)
WIDTH = 12


def tiny_encoder() -> VisionTransformer:
    """Two blocks on a grid of 4x4 patches; frozen, as a target encoder is."""
    entry = POSITIONS.get("sincos")
    encoder = VisionTransformer(
        GRID, 2, 3, ModelSize(WIDTH, 2, 2), entry.component(entry.params_type(), GRID, WIDTH, 2)
    )
    initialize_weights(encoder, torch.Generator().manual_seed(0))
    return encoder.requires_grad_(False)


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    """[count, 3, 8, 8] uint8."""
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def tiny_sampler() -> MaskSampler:
    """Contexts of unequal sizes, padded."""
    entry = MASKERS.get("multi_block")
    return MaskSampler(entry.component(entry.params_type(min_context_patches=2, num_targets=2), GRID), "pad", False)


def make_observed(images: Images | None = None, **changes: Any) -> Observed:
    """60 random images through the tiny encoder; anything can be replaced."""
    given: dict[str, Any] = {
        "encoder": tiny_encoder(),
        "images": random_images(60) if images is None else images,
        "mean": torch.tensor([0.4, 0.5, 0.6]),
        "std": torch.tensor([0.2, 0.3, 0.4]),
        "batch_size": 16,
        "device": torch.device("cpu"),
        "sampler": tiny_sampler(),
        "masked_at_once": 24,
        "seed": 0,
    }
    return Observed(**{**given, **changes})
