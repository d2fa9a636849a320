"""Explicit attention weights are those of the fused attention."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.models.sequences import PaddedSequences
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import Attention, VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS
from jepa_lab.positions.rope import RopeParams, RotaryPosition
from tests.positions import ENCODER_POSITIONS

GRID, SIZE = Grid(4, 6), ModelSize(24, 3, 3)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
def test_their_output_is_the_fused_one_and_padding_gets_none(padded: bool, rotated: bool) -> None:
    attention, tokens = Attention(24, 3).double(), 5 * torch.randn(14, 24, dtype=torch.float64)
    indices = torch.stack([torch.randperm(24)[:7] for _ in range(2)])
    rotation = RotaryPosition(RopeParams(), GRID, 24, 3).double().rotation(indices.view(1, 14)) if rotated else None
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[0, 4:] = not padded
    sequences = PaddedSequences.of(valid if padded else None, (2, 7))
    out, weights = attention.with_weights(tokens, rotation, sequences)
    assert torch.allclose(out, attention(tokens, rotation, sequences), atol=1e-12)
    assert weights.shape == (2, 3, 7, 7)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 7, dtype=torch.float64), atol=1e-12)
    assert (weights[0, :, :, 4:].abs().max() == 0) == padded
    assert weights.var() > 1e-3


@pytest.mark.parametrize("position", ENCODER_POSITIONS)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_an_encoder_gives_the_weights_of_the_block_that_is_asked_for(position: str, layer: int) -> None:
    entry = POSITIONS.get(position)
    encoder = VisionTransformer(GRID, 2, 3, SIZE, entry.component(entry.params_type(), GRID, 24, 3))
    initialize_weights(encoder, torch.Generator().manual_seed(0))
    for parameter in encoder.parameters():
        parameter.data.mul_(5)
    images, seen = torch.rand(2, 3, 8, 12), {}

    def keep(module: Attention, arguments: tuple[torch.Tensor, ...]) -> None:
        seen["arguments"] = arguments

    encoder.blocks[layer - 1].attn.register_forward_pre_hook(keep)
    encoder(images)
    expected = encoder.blocks[layer - 1].attn.with_weights(*seen["arguments"][:3])[1]
    weights = encoder.attention_weights(images, layer)
    assert weights.shape == (2, 3, 24, 24)
    assert torch.allclose(weights, expected, atol=1e-6)
    assert not weights.requires_grad
