"""A batch computed in parts is the batch, whatever masks it."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from jepa_lab.downsampling.conv import Conv
from jepa_lab.grid import Grid
from jepa_lab.losses.base import LOSSES
from jepa_lab.maskers.base import MASKERS, Masks
from jepa_lab.maskers.batching import ContextBatching
from jepa_lab.maskers.sampling import MaskSampler
from jepa_lab.models.hierarchy import Hierarchy, Pyramid
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.level_masks import level_grids
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.sincos import SinCosPosition
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TARGETS, TargetInputs
from tests.golden.reference import build_reference_step, take

GRID = Grid(8, 8)
BATCH = 12


def build_model(target: str, loss: str, num_levels: int = 1) -> IJepa:
    def position(width: int, grid: Grid = GRID) -> SinCosPosition:
        return SinCosPosition(ComponentParams(), grid, width, 2)

    of_target, of_loss = TARGETS.get(target), LOSSES.get(loss)
    kind = of_target.component(of_target.params_type(), TargetInputs(16, 1, 2, 3))
    kind.fit(lambda count: iter([torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))]))
    encoder = VisionTransformer(GRID, 2, 3, ModelSize(16, 1, 2), position(16))
    grids = level_grids(GRID, num_levels)
    predictor, *coarser = (
        Predictor(16, ModelSize(8, 1, 2), position(8, grid), target_dim=kind.num_features) for grid in grids
    )
    pyramid = Pyramid(grids, [Conv(ComponentParams(), 16) for _ in grids[1:]], True)
    for module in (encoder, predictor, pyramid, *coarser):
        initialize_weights(module, torch.Generator().manual_seed(0))
    hierarchy = Hierarchy(pyramid, coarser, (1.0, 0.7, 0.5)[:num_levels]) if coarser else None
    model = IJepa(encoder, predictor, kind, of_loss.component(of_loss.params_type()), hierarchy=hierarchy)
    return model.double()


def draw_masks(masker: str, batching: ContextBatching = "pad", *, joint: bool = False) -> Masks:
    entry = MASKERS.get(masker)
    sampler = MaskSampler(entry.component(entry.params_type(), GRID), batching, joint)
    return sampler.sample(BATCH, torch.Generator().manual_seed(1))


def assert_parts_equal_the_whole(
    masks: Masks, target: str = "features", loss: str = "smooth_l1", num_levels: int = 1
) -> None:
    images = torch.randn(BATCH, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole, parts = (build_reference_step(build_model(target, loss, num_levels)) for _ in range(2))
    start = {name: tensor.clone() for name, tensor in whole.model.state_dict().items()}
    parts.parts = 4
    for step in range(1, 3):
        statistics = [take(each, images, masks, step) for each in (whole, parts)]
        assert statistics[0].loss.item() == pytest.approx(statistics[1].loss.item(), rel=1e-12)
        norms = [float(each.encoder_gradient_norm) for each in statistics]
        assert norms[0] == pytest.approx(norms[1], rel=1e-10)
    after = parts.model.state_dict()
    for name, tensor in whole.model.state_dict().items():
        # AdamW divides by the root of the squares, so rounding in tiny gradients shows more than in the loss.
        assert torch.allclose(tensor, after[name], rtol=0, atol=1e-7), name
    assert (after["predictor.mask_token"] - start["predictor.mask_token"]).abs().max() > 1e-4


@pytest.mark.parametrize("masker", MASKERS.names())
@pytest.mark.parametrize("batching", get_args(ContextBatching))
def test_accumulated_parts_equal_the_whole_batch_of_every_masker(masker: str, batching: ContextBatching) -> None:
    assert_parts_equal_the_whole(draw_masks(masker, batching))


def test_parts_with_unequal_counts_of_target_patches_equal_the_whole_batch() -> None:
    masks = draw_masks("multi_block", joint=True)
    counts = masks.target.counts().view(4, -1).sum(dim=1)
    assert len(set(counts.tolist())) > 1, "a mean of the parts' means would be right by chance"
    assert_parts_equal_the_whole(masks)


@pytest.mark.parametrize("target", TARGETS.names())
@pytest.mark.parametrize("loss", LOSSES.names())
def test_accumulated_parts_equal_the_whole_batch_for_every_target_and_loss(target: str, loss: str) -> None:
    assert_parts_equal_the_whole(draw_masks("multi_block"), target, loss)


@pytest.mark.parametrize("masker", MASKERS.names())
def test_accumulated_parts_equal_the_whole_batch_at_every_level_of_a_hierarchy(masker: str) -> None:
    assert_parts_equal_the_whole(draw_masks(masker), num_levels=3)
