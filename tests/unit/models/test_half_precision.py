"""Half precision is for products: what runs along the tokens is kept in single precision, wherever they lie."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.grid import Grid
from jepa_lab.losses.base import Loss
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.hierarchy import Pyramid
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.level_masks import level_grids
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS, PositionEmbedding
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.targets.base import TargetInputs
from jepa_lab.targets.pixels import PixelsTarget
from tests.packers import pack_exactly
from tests.positions import PAIRS

GRID, SIZE = Grid(4, 4), ModelSize(16, 3, 2)


def position(name: str) -> PositionEmbedding:
    entry = POSITIONS.get(name)
    return entry.component(entry.params_type(), GRID, SIZE.embed_dim, SIZE.num_heads)


def watch(blocks: nn.ModuleList) -> set[torch.dtype]:
    """The number types of the tokens that blocks are given, once they have run."""
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, arguments: Any) -> None:
        seen.add(arguments[0].dtype)

    for block in blocks:
        block.register_forward_pre_hook(note)
    return seen


@pytest.mark.parametrize(("name", "of_predictor"), PAIRS)
def test_blocks_add_to_tokens_in_single_precision_whatever_their_positions(name: str, of_predictor: str) -> None:
    encoder = VisionTransformer(GRID, 2, 3, SIZE, position(name))
    predictor = Predictor(SIZE.embed_dim, SIZE, position(of_predictor))
    predictor.position.follow(encoder.position)
    for module in (encoder, predictor):
        initialize_weights(module, torch.Generator().manual_seed(0))
    seen = watch(encoder.blocks), watch(predictor.blocks)
    masks = Masks(Patches(torch.tensor([[[0, 3, 5]]])), Patches(torch.tensor([[[9, 10]]])))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(torch.randn(1, 3, 8, 8))
        packing = pack_exactly(masks, GRID.num_patches)
        predictor(features[0, :3], packing.pairs, packing.context.patches)
    assert seen == ({torch.float32}, {torch.float32})
    assert features.dtype == torch.float32


@pytest.mark.parametrize("entry", list(DOWNSAMPLINGS), ids=lambda entry: entry.name)
def test_every_level_of_a_pyramid_is_in_the_precision_of_its_features(entry: Entry) -> None:
    grids = level_grids(GRID, 3)
    pyramid = Pyramid(grids, [entry.component(entry.params_type(), 16) for _ in grids[1:]], skip_connections=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        levels = pyramid(torch.randn(2, 16, 16), torch.ones(2, 16, dtype=torch.bool))
    assert [level.dtype for level in levels] == [torch.float32] * 3


class Recording(Loss):
    """Keeps what it is given."""

    def per_patch(self, predictions: Tensor, targets: Tensor) -> Tensor:
        self.predictions, self.targets = predictions, targets
        return (predictions - targets).square().mean(-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_compares_predictions_with_targets_that_were_not_rounded_to_half_precision(dtype: torch.dtype) -> None:
    encoder = VisionTransformer(GRID, 2, 3, SIZE, position("sincos"))
    predictor = Predictor(SIZE.embed_dim, SIZE, position("sincos"), target_dim=12)
    target = PixelsTarget(ComponentParams(), TargetInputs(SIZE.embed_dim, SIZE.depth, 2, 3))
    loss = Recording(ComponentParams())
    model = IJepa(encoder, predictor, target, loss)
    masks = Masks(Patches(torch.tensor([[[0, 3, 5]]])), Patches(torch.tensor([[[9, 10]]])))
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=dtype):
        prediction = model(images, masks)
    pixels = target.compute(model.target_encoder, images, masks)
    assert not torch.equal(pixels, pixels.to(dtype).float())
    assert torch.equal(loss.targets[:, 0], pixels)
    assert torch.equal(prediction.targets, pixels)
    assert loss.predictions.dtype == prediction.loss.dtype == torch.float32
