"""A pyramid's levels where probes look for an encoder's features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jepa_lab.grid import Grid
from jepa_lab.models.pyramid_features import PyramidFeatures
from tests.unit.models.test_hierarchy import GRID, WIDTH, build_model, images

BATCH = 3


def pyramid_features(kind: str, levels: tuple[int, ...], skips: bool = True) -> PyramidFeatures:
    model = build_model(kind, skips=skips)
    return PyramidFeatures(model.target_encoder, model.hierarchy.target_pyramid, levels)


@pytest.mark.parametrize("kind", ["pooling", "conv"])
@pytest.mark.parametrize("levels", [(1, 2, 3), (3,), (1, 3)])
def test_each_patch_has_the_normalised_features_of_its_cells_side_by_side(kind: str, levels: tuple[int, ...]) -> None:
    probed = pyramid_features(kind, levels)
    found = probed.last_layers(images(BATCH), 1)
    assert found.shape == (BATCH, GRID.num_patches, len(levels) * WIDTH)
    every = torch.ones(BATCH, GRID.num_patches, dtype=torch.bool)
    of_levels = probed.pyramid(probed.encoder(images(BATCH)), every)
    for patch in range(GRID.num_patches):
        row, column = divmod(patch, GRID.width)
        for at, level in enumerate(levels):
            side, grid = 2 ** (level - 1), probed.pyramid.grids[level - 1]
            cell = (row // side) * grid.width + column // side
            wanted = F.layer_norm(of_levels[level - 1][:, cell], (WIDTH,))
            assert torch.allclose(found[:, patch, at * WIDTH : (at + 1) * WIDTH], wanted, atol=1e-12)


def test_of_several_blocks_each_has_its_levels_and_the_last_stands_at_the_end() -> None:
    probed = pyramid_features("conv", (1, 2))
    last, both = probed.last_layers(images(BATCH), 1), probed.last_layers(images(BATCH), 2)
    assert both.shape[-1] == 2 * 2 * WIDTH
    assert torch.allclose(both[..., 2 * WIDTH :], last)
    assert not torch.allclose(both[..., : 2 * WIDTH], last)


def test_pooled_levels_differ_on_average_over_an_image_although_nothing_was_learned() -> None:
    """Averages of averages are those of the patches, whatever the level; normalised cells are not."""
    levels = pyramid_features("pooling", (1, 2, 3), skips=False).last_layers(images(BATCH), 1).mean(dim=1)
    first, second, third = levels.split(WIDTH, dim=-1)
    assert (first - second).abs().max() > 0.01
    assert (second - third).abs().max() > 0.01


def test_on_another_grid_the_pyramid_has_the_very_weights_of_this_one() -> None:
    pyramid, grid = build_model("conv").hierarchy.context_pyramid, Grid(4, 4)
    other = pyramid.at_grid(grid)
    assert [str(each) for each in other.grids] == ["4x4", "2x2", "1x1"]
    assert all(a is b for a, b in zip(pyramid.parameters(), other.parameters(), strict=True))
    assert [level.shape[1] for level in other(torch.randn(2, 16, WIDTH).double(), torch.ones(2, 16) > 0)] == [16, 4, 1]
