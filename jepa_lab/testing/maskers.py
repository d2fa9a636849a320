"""What every masker keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masker, Masks
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.randomness import seeded
from jepa_lab.testing.steps import InTheStep


class MaskerContract(InTheStep):
    """Tests of a `Masker`; it must take the grids 8x8 and 7x10.

    Attributes:
        is_random: whether images of a batch get masks of their own.
    """

    overrides = ("masker={}",)
    fitting = Grid(8, 8)
    breaking: ClassVar[Sequence[Any]] = (Grid(1, 1), Grid(1, 9))
    is_random: ClassVar[bool] = True

    @pytest.fixture(params=[Grid(8, 8), Grid(7, 10)], ids=str)
    def grid(self, request: pytest.FixtureRequest) -> Grid:
        """A patch grid."""
        return request.param

    @pytest.fixture
    def masker(self, entry: Entry[Masker], params: ComponentParams, grid: Grid) -> Masker:
        """The masker on the grid."""
        return entry.component(params, grid)

    @pytest.mark.parametrize("batch_size", [1, 7])
    def test_shapes_are_those_declared_in_every_batch(self, masker: Masker, batch_size: int) -> None:
        generator = seeded(0)
        without_validity = set()
        for _ in range(10):
            masks = masker.sample(batch_size, generator)
            assert masks.context.shape == (batch_size, masker.num_context_views, masker.max_context_patches)
            assert masks.target.shape == (batch_size, masker.num_target_blocks, masker.max_target_patches)
            for indices, valid in _parts(masks):
                assert indices.dtype == torch.int64
                assert valid.dtype == torch.bool
                assert valid.shape == indices.shape
            without_validity.add((masks.context.valid is None, masks.target.valid is None))
        assert len(without_validity) == 1  # a compiled step must not meet both

    @pytest.mark.parametrize("batch_size", [1, 7])
    def test_valid_patches_come_first_in_raster_order_and_padding_is_index_zero(
        self, masker: Masker, batch_size: int
    ) -> None:
        generator = seeded(1)
        for _ in range(10):
            for indices, valid in _parts(masker.sample(batch_size, generator)):
                assert indices.min() >= 0
                assert indices.max() < masker.grid.num_patches
                assert indices.masked_select(~valid).eq(0).all()
                assert valid[..., 0].all()  # at least one patch
                assert not (valid[..., 1:] & ~valid[..., :-1]).any()
                ascending = indices[..., 1:] > indices[..., :-1]
                assert ascending[valid[..., 1:]].all()

    @pytest.mark.parametrize("batch_size", [1, 7])
    def test_context_is_disjoint_from_every_target(self, masker: Masker, batch_size: int) -> None:
        generator, num_patches = seeded(2), masker.grid.num_patches
        for _ in range(20):
            masks = masker.sample(batch_size, generator)
            is_context = masks.context.coverage(num_patches).any(dim=1)
            is_target = masks.target.coverage(num_patches).any(dim=1)
            assert not (is_context & is_target).any()

    def test_the_generator_alone_decides_the_masks(
        self, entry: Entry[Masker], params: ComponentParams, grid: Grid
    ) -> None:
        first_generator, again_generator = seeded(3), seeded(3)
        first, again = entry.component(params, grid), entry.component(params, grid)
        global_state = torch.get_rng_state()
        drawn = []
        for _ in range(3):
            torch.rand(5)  # the global generator must not matter
            pairs = zip(_parts(first.sample(7, first_generator)), _parts(again.sample(7, again_generator)), strict=True)
            for (indices, valid), (same_indices, same_valid) in pairs:
                assert torch.equal(indices, same_indices)
                assert torch.equal(valid, same_valid)
                drawn.append(indices)
        assert not self.is_random or not torch.equal(drawn[1], drawn[3])
        torch.set_rng_state(global_state)

    def test_images_of_a_batch_differ_where_masks_are_random(self, masker: Masker) -> None:
        masks = masker.sample(7, seeded(4))
        assert (len({tuple(row) for row in masks.target.indices.flatten(1).tolist()}) > 1) == self.is_random

    def test_counts_stay_below_the_declared_maxima_and_come_near(self, masker: Masker) -> None:
        generator = seeded(5)
        batches = [masker.sample(64, generator) for _ in range(40)]
        most_context = max(int(masks.context.counts().max()) for masks in batches)
        most_target = max(int(masks.target.counts().max()) for masks in batches)
        assert 0.6 * masker.max_context_patches < most_context <= masker.max_context_patches
        assert 0.9 * masker.max_target_patches <= most_target <= masker.max_target_patches


def _parts(masks: Masks) -> list[tuple[Tensor, Tensor]]:
    """Context and target indices with validity."""
    return [(patches.indices, patches.validity()) for patches in (masks.context, masks.target)]
