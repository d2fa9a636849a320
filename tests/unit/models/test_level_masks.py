"""Masks of coarser levels, cell by cell: context, targets, and how much of the targets is seen."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from jepa_lab.build import build_sampler
from jepa_lab.config.loading import load_pipeline
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS, Masks
from jepa_lab.maskers.patches import Patches, patches_of
from jepa_lab.models.level_masks import CountTargetsOn, level_grids, level_masks, visible_target_shares
from tests.integration.test_systems import PIPELINES

GRIDS = [Grid(8, 8), Grid(14, 14), Grid(7, 10), Grid(5, 3)]
LEVELS = 4
COUNTED: list[CountTargetsOn] = ["patches", "level_below"]

every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)
either_count = pytest.mark.parametrize("counted", COUNTED)


def of_blocks(grid: Grid, batch_size: int = 8) -> Masks:
    entry = MASKERS.get("multi_block")
    masker = entry.component(entry.params_type(num_targets=2, min_context_patches=1), grid)
    return masker.sample(batch_size, torch.Generator().manual_seed(0))


def scattered(grid: Grid, batch_size: int = 8) -> Masks:
    """Any patches, of two context views and three target blocks; some may be both."""
    generator = torch.Generator().manual_seed(1)

    def some(sequences: int, share: float) -> Patches:
        covered = torch.rand(batch_size, sequences, grid.num_patches, generator=generator) < share
        covered[..., 0] = True
        return patches_of(covered, grid.num_patches)

    return Masks(some(2, 0.3), some(3, 0.5))


def patches_in(cell: int, grid: Grid, level: int) -> list[int]:
    """The patches in a cell of a level (0 is the patches themselves)."""
    side = 2**level
    row, column = divmod(cell, level_grids(grid, level + 1)[-1].width)
    return [
        y * grid.width + x
        for y in range(row * side, min(grid.height, (row + 1) * side))
        for x in range(column * side, min(grid.width, (column + 1) * side))
    ]


def sets(patches: Patches) -> list[list[set[int]]]:
    """The valid indices of each sequence of each image."""
    valid = patches.validity()
    return [
        [set(row[keep].tolist()) for row, keep in zip(rows, keeps, strict=True)]
        for rows, keeps in zip(patches.indices, valid, strict=True)
    ]


def target_cells(block: set[int], grid: Grid, level: int, counted: CountTargetsOn) -> set[int]:
    """Of a block of patches the cells of a level that are targets, one by one."""
    if level == 0:
        return block
    here, below = level_grids(grid, level + 1)[-1], level_grids(grid, level)[-1]
    if counted == "patches":
        parts, covered = {cell: patches_in(cell, grid, level) for cell in range(here.num_patches)}, block
    else:
        parts = {cell: patches_in(cell, below, 1) for cell in range(here.num_patches)}
        covered = target_cells(block, grid, level - 1, counted)
    return {cell for cell, inside in parts.items() if 2 * len(covered & set(inside)) >= len(inside)}


def test_grids_are_halved_and_rounded_up() -> None:
    assert [str(grid) for grid in level_grids(Grid(14, 14), 3)] == ["14x14", "7x7", "4x4"]
    assert [str(grid) for grid in level_grids(Grid(5, 3), 3)] == ["5x3", "3x2", "2x1"]


@every_grid
@either_count
@pytest.mark.parametrize("draw", [of_blocks, scattered])
def test_cells_are_targets_by_half_of_what_is_counted_and_context_by_one_patch(
    grid: Grid, counted: CountTargetsOn, draw: object
) -> None:
    masks = draw(grid)  # type: ignore[operator]
    blocks, views = sets(masks.target), sets(masks.context)
    for level, of_level in enumerate(level_masks(masks, level_grids(grid, LEVELS), counted)):
        cells = level_grids(grid, level + 1)[-1].num_patches
        for image, (targets, contexts) in enumerate(zip(sets(of_level.target), sets(of_level.context), strict=True)):
            assert targets == [target_cells(block, grid, level, counted) for block in blocks[image]]
            seen = [
                {cell for cell in range(cells) if view & set(patches_in(cell, grid, level))} for view in views[image]
            ]
            assert contexts == seen


@every_grid
@either_count
@pytest.mark.parametrize("draw", [of_blocks, scattered])
def test_visible_shares_are_those_of_every_pair_of_a_view_and_a_target_cell(
    grid: Grid, counted: CountTargetsOn, draw: object
) -> None:
    masks = draw(grid)  # type: ignore[operator]
    grids = level_grids(grid, LEVELS)
    of_levels = level_masks(masks, grids, counted)
    views = sets(masks.context)
    for level, (of_level, share) in enumerate(
        zip(of_levels, visible_target_shares(of_levels, grids).tolist(), strict=True)
    ):
        shares = [
            Fraction(len(view & set(inside)), len(inside))
            for image, blocks in enumerate(sets(of_level.target))
            for block in blocks
            for inside in (patches_in(cell, grid, level) for cell in block)
            for view in views[image]
        ]
        assert share == pytest.approx(float(sum(shares) / len(shares)) if shares else 0.0, abs=1e-6)


@every_grid
def test_where_patches_are_counted_at_most_half_of_a_target_cell_is_seen(grid: Grid) -> None:
    masks = of_blocks(grid, 64)
    views = sets(masks.context)
    for level, of_level in enumerate(level_masks(masks, level_grids(grid, LEVELS), "patches")):
        for image, blocks in enumerate(sets(of_level.target)):
            for inside in (patches_in(cell, grid, level) for block in blocks for cell in block):
                assert 2 * len(views[image][0] & set(inside)) <= len(inside)


def test_where_cells_of_the_level_below_are_counted_most_of_a_target_cell_may_be_seen() -> None:
    """Two of four cells that are half target: a quarter of the patches."""
    grid = Grid(8, 8)
    block = torch.tensor([[[0, 1, 2, 3]]])  # half of each of the two upper cells of 2x2 patches
    rest = torch.arange(4, 64)[None, None]
    masks, grids = Masks(Patches(rest), Patches(block)), level_grids(grid, 3)
    counted = {name: level_masks(masks, grids, name) for name in COUNTED}
    assert [int(each[2].target.counts()) for each in counted.values()] == [0, 1]
    assert visible_target_shares(counted["level_below"], grids).tolist() == [0.0, 0.5, 0.75]
    assert visible_target_shares(counted["patches"], grids).tolist() == [0.0, 0.5, 0.0]


@pytest.mark.parametrize("name", ["hjepa_cifar10", "hjepa_imagenet"])
def test_the_h_jepa_pipelines_predict_mostly_hidden_cells(name: str) -> None:
    pipeline = load_pipeline(PIPELINES / f"{name}.yaml", ["data.root=unused"]).pipeline
    masks = build_sampler(pipeline).sample(512, torch.Generator().manual_seed(0))
    grids = level_grids(Grid(14, 14), 3)
    assert pipeline.hierarchy.count_targets_on == "patches"
    patches, below = (visible_target_shares(level_masks(masks, grids, each), grids).tolist() for each in COUNTED)
    assert patches[:2] == below[:2]
    assert patches[0] == 0
    assert 0 < patches[1] < 0.25
    assert 0 < patches[2] < 0.2
    assert below[2] > 1.25 * patches[2]
