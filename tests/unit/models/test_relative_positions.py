"""With RoPE attention depends on relative position alone, also between context and target tokens of the predictor."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.packing import pad
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import Attention, initialize_weights
from jepa_lab.positions.base import POSITIONS

GRID, SIZE = Grid(9, 10), ModelSize(24, 2, 3)
CONTEXT = torch.tensor([[[0, 0], [1, 3], [3, 1], [4, 4], [2, 2]]])  # [E, K, 2]: row and column
TARGETS = torch.tensor([[[0, 1], [0, 2], [1, 1]], [[3, 3], [4, 0], [2, 4]]])  # [M, T, 2]
SHIFTS = [(0, 0), (1, 0), (0, 1), (4, 5), (3, 2), (1, 5)]


def build_predictor(position: str) -> Predictor:
    entry = POSITIONS.get(position)
    predictor = Predictor(16, SIZE, entry.component(entry.params_type(), GRID, SIZE.embed_dim, SIZE.num_heads))
    initialize_weights(predictor, torch.Generator().manual_seed(0))
    for parameter in predictor.parameters():  # larger weights, so that differences cannot hide
        parameter.data.mul_(10)
    return predictor.double()


def predict(
    predictor: Predictor, context_shift: tuple[int, int], target_shift: tuple[int, int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Predictions [1, E, M, T, D], and the attention weights of each block; the context's features stay the same."""
    context, targets = ((CONTEXT, context_shift), (TARGETS, target_shift))
    numbers = [
        ((place + torch.tensor(shift)) * torch.tensor([GRID.width, 1])).sum(-1)[None]
        for place, shift in (context, targets)
    ]
    valid = torch.tensor([[[True, True, True], [True, True, False]]])
    masks = Masks(Patches(numbers[0]), Patches(numbers[1], valid))
    weights: list[torch.Tensor] = []

    def keep(module: Attention, arguments: tuple[torch.Tensor, ...]) -> None:
        weights.append(module.with_weights(*arguments[:3])[1])

    hooks = [block.attn.register_forward_pre_hook(keep) for block in predictor.blocks]
    features = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    packing = pad(masks, GRID.num_patches)
    out = predictor(features, packing.pairs, packing.context.patches).unflatten(0, (1, 1, 2, 3))
    for hook in hooks:
        hook.remove()
    return out, weights


@pytest.mark.parametrize("shift", SHIFTS)
def test_rope_sees_no_difference_when_context_and_targets_move_together(shift: tuple[int, int]) -> None:
    predictor = build_predictor("rope")
    (before, weights), (after, moved_weights) = predict(predictor, (0, 0), (0, 0)), predict(predictor, shift, shift)
    for first, second in zip(weights, moved_weights, strict=True):
        assert torch.allclose(first, second, atol=1e-6)  # the table of angles is rounded to single precision
        assert first.std() > 0.01
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("shift", SHIFTS[1:])
def test_rope_sees_when_the_targets_alone_move(shift: tuple[int, int]) -> None:
    predictor = build_predictor("rope")
    (before, weights), (after, moved_weights) = predict(predictor, (0, 0), (0, 0)), predict(predictor, (0, 0), shift)
    to_context = [each[:, :, 5:, :5] for each in (weights[0], moved_weights[0])]  # target queries, context keys
    assert (to_context[0] - to_context[1]).abs().max() > 1e-3
    assert (before - after).abs().max() > 1e-3


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_absolute_positions_see_when_both_move(position: str) -> None:
    predictor = build_predictor(position)
    (before, weights), (after, moved_weights) = predict(predictor, (0, 0), (0, 0)), predict(predictor, (4, 5), (4, 5))
    assert (weights[0] - moved_weights[0]).abs().max() > 1e-3
    assert (before - after).abs().max() > 1e-3
