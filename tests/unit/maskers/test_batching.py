"""What becomes of contexts that differ in size."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS, Masks
from jepa_lab.maskers.batching import batch_context, trim, union_of_targets
from jepa_lab.maskers.patches import Patches
from jepa_lab.maskers.reference_multi_block import ReferenceMultiBlock
from tests.unit.maskers.reading import as_sets, contexts_of, in_order, seeded, targets_of


@pytest.fixture(params=[entry.name for entry in MASKERS])
def masks(request: pytest.FixtureRequest) -> Masks:
    entry = MASKERS.get(request.param)
    return entry.component(entry.params_type(), Grid(7, 10)).sample(24, seeded(0))


def views(seed: int = 0) -> Masks:
    """Three context views of quite different sizes."""
    params = ReferenceMultiBlock.Params(num_context_views=3, context_scale=(0.5, 0.5))
    return ReferenceMultiBlock(params, Grid(8, 8)).sample(24, seeded(seed))


def test_pad_keeps_every_patch(masks: Masks) -> None:
    assert batch_context(masks, "pad", seeded(0)).context is masks.context


def test_prefix_keeps_the_first_patches_of_each_context_up_to_the_batch_minimum() -> None:
    masks = views()
    cut = batch_context(masks, "prefix", seeded(0))
    fewest = min(len(view) for image in contexts_of(masks) for view in image)
    before = in_order(masks.context)
    after = in_order(cut.context)
    assert after == [[view[:fewest] for view in image] for image in before]


def test_subset_keeps_as_many_patches_in_raster_order() -> None:
    masks = views()
    cut = batch_context(masks, "subset", seeded(0))
    fewest = min(len(view) for image in contexts_of(masks) for view in image)
    for image, cut_image in zip(contexts_of(masks), in_order(cut.context), strict=True):
        for view, kept in zip(image, cut_image, strict=True):
            assert len(kept) == fewest
            assert kept == sorted(kept)
            assert set(kept) <= view


def test_subset_is_uniform_over_the_patches_of_each_image() -> None:
    context = torch.tensor([[[3, 5, 7, 11, 13]], [[2, 4, 0, 0, 0]]])
    valid = torch.tensor([[[True] * 5], [[True, True, False, False, False]]])
    target = torch.tensor([[[1]], [[1]]])
    generator, trials = seeded(0), 4000
    kept = torch.zeros(5)
    pairs = set()
    for _ in range(trials):
        cut = batch_context(Masks(Patches(context, valid), Patches(target)), "subset", generator)
        assert cut.context.indices[1, 0].tolist() == [2, 4, 0, 0, 0]
        first = cut.context.indices[0, 0, :2]
        pairs.add(tuple(first.tolist()))
        kept += (context[0, 0, :, None] == first).any(dim=1)
    assert len(pairs) == 10
    assert (kept / trials - 2 / 5).abs().max() < 0.04


@pytest.mark.parametrize("batching", ["subset", "prefix"])
def test_truncation_leaves_shapes_targets_and_padding(masks: Masks, batching: str) -> None:
    cut = batch_context(masks, batching, seeded(0))  # type: ignore[arg-type]
    assert cut.context.shape == masks.context.shape
    assert cut.target is masks.target
    assert len(set(cut.context.counts().flatten().tolist())) == 1
    assert cut.context.counts()[0, 0] == masks.context.counts().min()
    assert cut.context.valid is not None
    assert cut.context.indices.masked_select(~cut.context.valid).eq(0).all()


def test_equal_contexts_are_left_alone() -> None:
    entry = MASKERS.get("random")
    masks = entry.component(entry.params_type(target_ratio=(0.5, 0.5)), Grid(8, 8)).sample(4, seeded(0))
    for batching in ("pad", "subset", "prefix"):
        assert batch_context(masks, batching, seeded(0)) is masks  # type: ignore[arg-type]


def test_trim_cuts_to_the_largest_count_and_keeps_the_patches(masks: Masks) -> None:
    for given in (masks, batch_context(masks, "prefix", seeded(0)), views()):
        short = trim(given)
        assert short.context.shape[-1] == given.context.counts().max()
        assert short.target.shape[-1] == given.target.counts().max()
        assert contexts_of(short) == contexts_of(given)
        assert targets_of(short) == targets_of(given)
        for counts, valid in (
            (given.context.counts(), short.context.valid),
            (given.target.counts(), short.target.valid),
        ):
            assert (valid is None) == (counts.min() == counts.max()).item()


def test_union_of_targets_holds_every_target_patch_once_in_raster_order(masks: Masks) -> None:
    union = union_of_targets(masks, 70)
    blocks, patches = masks.target.shape[1:]
    assert union.target.shape == (24, 1, min(70, blocks * patches))
    for (found,), targets in zip(in_order(union.target), targets_of(masks), strict=True):
        assert found == sorted(set().union(*targets))
    assert union.target.valid is not None
    assert union.target.indices.masked_select(~union.target.valid).eq(0).all()
    assert union.context is masks.context


def test_coverage_reads_what_sets_read(masks: Masks) -> None:
    covered = masks.target.coverage(70)
    sets = as_sets(masks.target)
    assert [[set(row.nonzero().flatten().tolist()) for row in image] for image in covered] == sets
