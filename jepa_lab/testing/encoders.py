"""A tiny encoder with random weights."""

from __future__ import annotations

from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS
from jepa_lab.testing.randomness import seeded

WIDTH = 12


def tiny_encoder(grid: Grid, patch_size: int) -> VisionTransformer:
    """Two blocks of width 12 for images of 3 channels; frozen, as a target encoder is."""
    entry = POSITIONS.get("sincos")
    position = entry.component(entry.params_type(), grid, WIDTH, 2)
    encoder = VisionTransformer(grid, patch_size, 3, ModelSize(WIDTH, 2, 2), position)
    initialize_weights(encoder, seeded())
    return encoder.requires_grad_(False)
