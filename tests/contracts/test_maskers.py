"""What every registered masker must keep to."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS, Masker, Masks
from jepa_lab.registry import Entry

ENTRIES = list(MASKERS)
GRIDS = [Grid(8, 8), Grid(7, 10)]

each_masker = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)
each_batch_size = pytest.mark.parametrize("batch_size", [1, 7])


def build(entry: Entry[Masker], grid: Grid) -> Masker:
    return entry.component(entry.params_type(), grid)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(masks: Masks) -> list[tuple[Tensor, Tensor]]:
    """Context and target indices with validity."""
    return [(patches.indices, patches.validity()) for patches in (masks.context, masks.target)]


@each_masker
@each_grid
@each_batch_size
def test_shapes_are_those_declared_in_every_batch(entry: Entry[Masker], grid: Grid, batch_size: int) -> None:
    masker, generator = build(entry, grid), seeded(0)
    without_validity = set()
    for _ in range(10):
        masks = masker.sample(batch_size, generator)
        assert masks.context.shape == (batch_size, masker.num_context_views, masker.max_context_patches)
        assert masks.target.shape == (batch_size, masker.num_target_blocks, masker.max_target_patches)
        for indices, valid in parts(masks):
            assert indices.dtype == torch.int64
            assert valid.dtype == torch.bool
            assert valid.shape == indices.shape
        without_validity.add((masks.context.valid is None, masks.target.valid is None))
    assert len(without_validity) == 1  # a compiled step must not meet both


@each_masker
@each_grid
@each_batch_size
def test_valid_patches_come_first_in_raster_order_and_padding_is_index_zero(
    entry: Entry[Masker], grid: Grid, batch_size: int
) -> None:
    masker, generator = build(entry, grid), seeded(1)
    for _ in range(10):
        for indices, valid in parts(masker.sample(batch_size, generator)):
            assert indices.min() >= 0
            assert indices.max() < grid.num_patches
            assert indices.masked_select(~valid).eq(0).all()
            assert valid[..., 0].all()  # at least one patch
            assert not (valid[..., 1:] & ~valid[..., :-1]).any()
            ascending = indices[..., 1:] > indices[..., :-1]
            assert ascending[valid[..., 1:]].all()


@each_masker
@each_grid
@each_batch_size
def test_context_is_disjoint_from_every_target(entry: Entry[Masker], grid: Grid, batch_size: int) -> None:
    masker, generator = build(entry, grid), seeded(2)
    for _ in range(20):
        masks = masker.sample(batch_size, generator)
        is_context = masks.context.coverage(grid.num_patches).any(dim=1)
        is_target = masks.target.coverage(grid.num_patches).any(dim=1)
        assert not (is_context & is_target).any()


@each_masker
@each_grid
def test_the_generator_alone_decides_the_masks(entry: Entry[Masker], grid: Grid) -> None:
    first_generator, again_generator = seeded(3), seeded(3)
    first, again = build(entry, grid), build(entry, grid)
    global_state = torch.get_rng_state()
    drawn = []
    for _ in range(3):
        torch.rand(5)  # the global generator must not matter
        pairs = zip(parts(first.sample(7, first_generator)), parts(again.sample(7, again_generator)), strict=True)
        for (indices, valid), (same_indices, same_valid) in pairs:
            assert torch.equal(indices, same_indices)
            assert torch.equal(valid, same_valid)
            drawn.append(indices)
    assert not torch.equal(drawn[1], drawn[3])
    torch.set_rng_state(global_state)


@each_masker
@each_grid
def test_images_of_a_batch_differ(entry: Entry[Masker], grid: Grid) -> None:
    masks = build(entry, grid).sample(7, seeded(4))
    assert len({tuple(row) for row in masks.target.indices.flatten(1).tolist()}) > 1


@each_masker
@each_grid
def test_counts_stay_below_the_declared_maxima_and_come_near(entry: Entry[Masker], grid: Grid) -> None:
    masker, generator = build(entry, grid), seeded(5)
    batches = [masker.sample(64, generator) for _ in range(40)]
    most_context = max(int(masks.context.counts().max()) for masks in batches)
    most_target = max(int(masks.target.counts().max()) for masks in batches)
    assert 0.6 * masker.max_context_patches < most_context <= masker.max_context_patches
    assert 0.9 * masker.max_target_patches <= most_target <= masker.max_target_patches


@each_masker
def test_params_are_frozen_closed_and_described(entry: Entry[Masker]) -> None:
    params = entry.params_type()
    assert entry.summary
    assert entry.source
    for name, field in entry.params_type.model_fields.items():
        assert field.description, f"{name} needs a description"
        with pytest.raises(ValidationError, match="frozen"):
            setattr(params, name, getattr(params, name))
    with pytest.raises(ValidationError, match="Extra inputs"):
        entry.params_type(no_such_setting=1)
    assert entry.params_type.model_validate_json(params.model_dump_json()) == params
