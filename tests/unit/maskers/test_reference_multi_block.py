"""The released code's masker: its numbers, and each of its quirks."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers import reference_multi_block
from jepa_lab.maskers.batching import batch_context, union_of_targets
from jepa_lab.maskers.reference_multi_block import ReferenceMultiBlock
from jepa_lab.maskers.statistics import mask_statistics
from tests.unit.maskers import oracles
from tests.unit.maskers.reading import contexts_of, record_largest_counts, seeded, sizes_of, targets_of

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "mask_statistics.json").read_text())
NUM_BATCHES = 400


def make(grid: Grid, **params: Any) -> ReferenceMultiBlock:
    return ReferenceMultiBlock(ReferenceMultiBlock.Params(**params), grid)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda g: f"{g['image_size']}px-batch{g['batch']}")
def test_statistics_are_those_of_the_released_code(golden: dict[str, Any]) -> None:
    """Sizes are drawn once a batch, so the spread between batches sets how far two means may lie apart."""
    side = golden["image_size"] // golden["patch_size"]
    masker = make(
        Grid(side, side),
        num_targets=golden["num_targets"],
        target_scale=golden["target_scale"],
        target_aspect_ratio=golden["target_aspect"],
        num_context_views=golden["num_context"],
        context_scale=golden["context_scale"],
        min_keep=golden["min_keep"],
        allow_overlap=golden["allow_overlap"],
    )
    generator = seeded(1)
    before, after, target, union = [], [], [], []
    per_image = []
    for _ in range(NUM_BATCHES):
        masks = masker.sample(golden["batch"], generator)
        per_image.append(masks.context.counts().double())
        before.append(per_image[-1].mean().item())
        after.append(batch_context(masks, "prefix", generator).context.counts().double().mean().item())
        target.append(masks.target.counts().double().mean().item())
        union.append(union_of_targets(masks, side * side).target.counts().double().mean().item())

    released = golden["context_before_truncation"]
    expected = [
        (before, released["mean"], golden["context_before_truncation_batch_mean_std"]),
        (after, golden["context_after_truncation_mean"], golden["context_after_truncation_std"]),
        (target, golden["target_block_mean"], golden["target_block_std"]),
        (union, golden["target_union_mean"], statistics.stdev(union)),
    ]
    for ours, mean, spread in expected:
        standard_error = spread / golden["batches"] ** 0.5
        assert statistics.mean(ours) == pytest.approx(mean, abs=4 * standard_error)
        assert statistics.stdev(ours) == pytest.approx(spread, rel=0.35)
    counts = torch.cat(per_image)
    assert counts.std().item() == pytest.approx(released["std"], rel=0.1)
    assert golden["min_keep"] < counts.min().item() <= released["min"] + 5
    assert counts.max().item() >= released["max"] - 5


@pytest.mark.parametrize(("grid", "unused"), [(Grid(14, 14), 27 / 196), (Grid(8, 8), 15 / 64)], ids=str)
def test_the_last_row_and_column_are_never_used(grid: Grid, unused: float) -> None:
    found = mask_statistics(make(grid), "pad", batch_size=64, num_batches=40, seed=0)
    assert found.never_used == pytest.approx(unused)
    for frequency in (found.context_frequency, found.target_frequency):
        assert frequency[-1].eq(0).all()
        assert frequency[:, -1].eq(0).all()
        assert frequency[:-1, :-1].gt(0).all()


def test_sizes_are_shared_by_the_batch_and_positions_are_not() -> None:
    grid, generator = Grid(14, 14), seeded(0)
    masker = make(grid)
    seen = set()
    for _ in range(60):
        masks = masker.sample(8, generator)
        sizes = {size for image in sizes_of(masks, grid) for size in image}
        assert len(sizes) == 1
        seen |= sizes
        assert len({tuple(row) for row in masks.target.indices.flatten(1).tolist()}) == 8
    assert seen == {(5, 6), (6, 5), (6, 6), (7, 5), (8, 5)}


def test_context_block_is_one_smaller_than_the_grid_in_its_corner() -> None:
    masker = make(Grid(8, 8), allow_overlap=True)
    masks = masker.sample(16, seeded(0))
    assert all(context == oracles.block(0, 0, 7, 7, 8) for (context,) in contexts_of(masks))


def test_contexts_respect_targets_where_there_is_room() -> None:
    masker = make(Grid(14, 14), num_context_views=3, context_scale=(0.3, 0.6))
    for seed in range(20):
        masks = masker.sample(16, seeded(seed))
        for contexts, targets in zip(contexts_of(masks), targets_of(masks), strict=True):
            assert len({frozenset(context) for context in contexts}) > 1
            for context in contexts:
                assert len(context) > 4
                assert not context & set().union(*targets)


@pytest.mark.parametrize(("context_scale", "min_keep"), [((0.5, 0.5), 9), ((0.25, 0.25), 5), ((0.85, 1.0), 8)], ids=str)
def test_contexts_agree_with_python_loops_that_give_up_targets(
    context_scale: tuple[float, float], min_keep: int
) -> None:
    """Large targets leave little room, so that one or more are given up in many images."""
    grid = Grid(8, 8)
    masker = make(
        grid,
        target_scale=(0.4, 0.4),
        target_aspect_ratio=(1.0, 1.0),
        context_scale=context_scale,
        min_keep=min_keep,
    )
    size = (min(7, round((64 * context_scale[0]) ** 0.5)),) * 2
    masks = masker.sample(3000, seeded(0))
    all_targets = targets_of(masks)
    rng = random.Random(0)
    ours = [context for (context,) in contexts_of(masks)]
    theirs = [oracles.released_context(rng, (8, 8), size, targets, min_keep) for targets in all_targets]
    overlapping = [
        [bool(context & set().union(*targets)) for context, targets in zip(contexts, all_targets, strict=True)]
        for contexts in (ours, theirs)
    ]
    assert statistics.mean(overlapping[1]) > 0.05
    assert statistics.mean(overlapping[0]) == pytest.approx(statistics.mean(overlapping[1]), abs=0.03)
    for length in range(min_keep + 1, 50):
        share, released = (sum(len(c) == length for c in contexts) / 3000 for contexts in (ours, theirs))
        assert share == pytest.approx(released, abs=0.03)
    frequency = [
        torch.tensor([[patch in context for patch in range(64)] for context in contexts]).double().mean(dim=0)
        for contexts in (ours, theirs)
    ]
    assert (frequency[0] - frequency[1]).abs().max() < 0.05


def test_all_views_of_an_image_are_distributed_alike() -> None:
    masker = make(Grid(14, 14), num_context_views=4, context_scale=(0.3, 0.3))
    masks = masker.sample(500, seeded(0))
    assert masks.context.shape == (500, 4, masker.max_context_patches)
    covered = masks.context.coverage(196).double().mean(dim=0)  # [E, N]
    assert (covered - covered.mean(dim=0)).abs().max() < 0.1


@pytest.mark.parametrize(
    "params",
    [
        {"target_scale": (0.2, 0.4), "context_scale": (0.5, 1.0), "num_targets": 2, "min_keep": 3},
        {"target_scale": (0.5, 0.8), "context_scale": (0.5, 0.8), "num_targets": 2, "min_keep": 4},
        {"allow_overlap": True, "min_keep": 1},
    ],
    ids=["respected", "given up", "overlap allowed"],
)
def test_declared_maxima_are_attained_and_never_exceeded(
    params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    masker = make(Grid(5, 6), **params)
    generator = seeded(0)
    with record_largest_counts(monkeypatch, reference_multi_block) as largest:
        for _ in range(400):
            masker.sample(32, generator)
    assert largest == [masker.max_context_patches, masker.max_target_patches]


def test_blocks_that_the_released_code_would_seek_forever_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"8x8 grid target_scale=\(0.15, 0.2\).*3x3=9.*min_keep=10.*raise"):
        make(Grid(8, 8), min_keep=10)
    with pytest.raises(ConfigError, match=r"8x8 grid context_scale=\(0.1, 0.1\).*2x2=4.*min_keep=4"):
        make(Grid(8, 8), context_scale=(0.1, 0.1))
    with pytest.raises(ConfigError, match="1x1 grid"):
        make(Grid(1, 1))
    make(Grid(8, 8), min_keep=8)
