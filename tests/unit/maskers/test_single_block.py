"""One target block and its complement."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers.single_block import SingleBlock
from tests.unit.maskers.reading import contexts_of, seeded, sizes_of, targets_of


def make(grid: Grid, **params: Any) -> SingleBlock:
    return SingleBlock(SingleBlock.Params(**params), grid)


@pytest.mark.parametrize("grid", [Grid(8, 8), Grid(14, 14), Grid(7, 10)], ids=str)
def test_context_is_everything_but_one_rectangle(grid: Grid) -> None:
    masker = make(grid, target_scale=(0.2, 0.7))
    for seed in range(10):
        masks = masker.sample(32, seeded(seed))
        assert len({sizes[0] for sizes in sizes_of(masks, grid)}) > 3
        for (context,), (target,) in zip(contexts_of(masks), targets_of(masks), strict=True):
            assert context | target == set(range(grid.num_patches))
            assert not context & target


def test_every_patch_is_context_and_target_sometimes() -> None:
    masks = make(Grid(7, 10)).sample(1000, seeded(0))
    assert masks.context.coverage(70).flatten(0, 1).any(dim=0).all()
    assert masks.target.coverage(70).flatten(0, 1).any(dim=0).all()


def test_sizes_that_leave_too_little_context_are_not_drawn() -> None:
    masker = make(Grid(8, 8), target_scale=(0.3, 1.0), min_context_patches=20)
    masks = masker.sample(4000, seeded(0))
    assert masks.context.counts().min() >= 20
    assert masks.context.counts().max() == masker.max_context_patches
    assert masks.target.counts().max() == masker.max_target_patches <= 44


def test_a_block_of_fixed_size_needs_no_validity() -> None:
    masks = make(Grid(8, 8), target_scale=(0.25, 0.25), target_aspect_ratio=(1.0, 1.0)).sample(4, seeded(0))
    assert masks.context.valid is None
    assert masks.target.valid is None
    assert (masks.context.shape, masks.target.shape) == ((4, 1, 48), (4, 1, 16))


def test_blocks_that_leave_too_little_context_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"single_block.*8x8 grid.*\(0.97, 1.0\).*8x8.*min_context_patches=4"):
        make(Grid(8, 8), target_scale=(0.97, 1.0), target_aspect_ratio=(1.0, 1.0))
