"""Several context blocks united, and targets that avoid them."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.grid import Grid
from jepa_lab.maskers import multi_context, redraw
from jepa_lab.maskers.multi_context import MultiContext
from tests.unit.maskers import oracles
from tests.unit.maskers.reading import box, contexts_of, record_largest_counts, seeded, sizes_of, targets_of

GRIDS = [Grid(4, 4), Grid(8, 8), Grid(14, 14), Grid(7, 10)]
FIXED = {
    "num_context_blocks": 1,
    "context_scale": (0.25, 0.25),
    "context_aspect_ratio": (1.0, 1.0),
    "target_scale": (0.25, 0.25),
    "target_aspect_ratio": (1.0, 1.0),
}
"""On a 4x4 grid: every block is 2x2."""


def make(grid: Grid, **params: Any) -> MultiContext:
    return MultiContext(MultiContext.Params(**params), grid)


def possible_sizes(grid: Grid, scale: tuple[float, float], aspect_ratio: tuple[float, float]) -> set[tuple[int, int]]:
    steps = torch.linspace(0, 1, 200).tolist()
    scales = [scale[0] + (scale[1] - scale[0]) * step for step in steps]
    ratios = [aspect_ratio[0] + (aspect_ratio[1] - aspect_ratio[0]) * step for step in steps]
    return {oracles.block_size(grid.num_patches, s, r) for s in scales for r in ratios}


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_targets_are_whole_blocks_that_avoid_every_context_block(grid: Grid) -> None:
    masker = make(grid)
    sizes = possible_sizes(grid, (0.1, 0.15), (0.75, 1.5))
    for seed in range(5):
        masks = masker.sample(64, seeded(seed))
        assert masks.target.shape[:2] == (64, 2)
        assert {size for image in sizes_of(masks, grid) for size in image} <= sizes
        for (context,), targets in zip(contexts_of(masks), targets_of(masks), strict=True):
            assert len(context) >= 4
            assert all(targets)
            assert not context & set().union(*targets)


@pytest.mark.parametrize("grid", GRIDS[1:], ids=str)
def test_one_context_block_is_a_rectangle_of_the_asked_size(grid: Grid) -> None:
    masks = make(grid, num_context_blocks=1).sample(500, seeded(0))
    boxes = [box(context, grid) for (context,) in contexts_of(masks)]
    assert all(len(context) == b[2] * b[3] for (context,), b in zip(contexts_of(masks), boxes, strict=True))
    sizes = {(b[2], b[3]) for b in boxes}
    assert sizes <= possible_sizes(grid, (0.15, 0.2), (0.75, 1.5))
    assert len(sizes) > 2


def test_a_context_is_a_union_of_as_many_blocks_as_asked_for() -> None:
    """2x2 blocks: every union of them and nothing else, over all ways to lay them."""
    grid = Grid(5, 4)
    masker = make(grid, **{**FIXED, "num_context_blocks": 2, "context_scale": (0.2, 0.2), "target_scale": (0.05, 0.05)})
    blocks = [oracles.block(top, left, 2, 2, 4) for top in range(4) for left in range(3)]
    unions = {frozenset(a | b) for a in blocks for b in blocks}
    masks = masker.sample(3000, seeded(0))
    assert {frozenset(context) for (context,) in contexts_of(masks)} == unions


SETTINGS = {
    "default": {},
    "other": {
        "num_context_blocks": 3,
        "context_scale": (0.1, 0.3),
        "context_aspect_ratio": (0.4, 0.8),
        "num_targets": 3,
        "target_scale": (0.05, 0.25),
        "target_aspect_ratio": (1.2, 2.5),
        "min_context_patches": 20,
    },
    "as the guide": {"aspect_ratio_is": "width_over_height", "block_rounding": "one_from_other_exact_area"},
}


@pytest.mark.parametrize("grid", [Grid(8, 8), Grid(7, 10)], ids=str)
@pytest.mark.parametrize("params", SETTINGS.values(), ids=SETTINGS)
def test_images_agree_with_a_masker_of_python_loops(params: dict[str, Any], grid: Grid) -> None:
    masker = make(grid, **params)
    masks = masker.sample(3000, seeded(0))
    rng = random.Random(0)
    settings = MultiContext.Params(**params).model_dump()
    images = [oracles.multi_context_image(rng, (grid.height, grid.width), **settings) for _ in range(700)]
    ours = list(zip([context for (context,) in contexts_of(masks)], targets_of(masks), strict=True))
    measures = {
        "context": lambda context, targets: len(context),
        "target": lambda context, targets: len(targets[0]),
        "last target": lambda context, targets: len(targets[-1]),
        "union": lambda context, targets: len(set().union(*targets)),
        "target shape": lambda context, targets: box(targets[0], grid)[2] / box(targets[0], grid)[3],
        "target row": lambda context, targets: box(targets[0], grid)[0],
        "target column": lambda context, targets: box(targets[-1], grid)[1],
        "context row": lambda context, targets: box(context, grid)[0],
        "context height": lambda context, targets: box(context, grid)[2],
        "context width": lambda context, targets: box(context, grid)[3],
    }
    for name, measure in measures.items():
        a, b = [measure(*image) for image in ours], [measure(*image) for image in images]
        error = (statistics.variance(a) / len(a) + statistics.variance(b) / len(b)) ** 0.5
        assert statistics.mean(a) == pytest.approx(statistics.mean(b), abs=4 * error), name
        assert statistics.stdev(a) == pytest.approx(statistics.stdev(b), rel=0.15), name
    frequency = torch.zeros(2, grid.num_patches)
    for row, drawn in zip(frequency, (ours, images), strict=True):
        for context, _ in drawn:
            row[list(context)] += 1 / len(drawn)
    assert (frequency[0] - frequency[1]).abs().max() < 5 * (0.25 / 700) ** 0.5


def test_a_target_is_uniform_over_the_places_that_its_context_leaves() -> None:
    """The central block leaves no place, and so never occurs; the other eight are equally frequent."""
    masks = make(Grid(4, 4), **FIXED, num_targets=1).sample(10_000, seeded(0))
    corners_drawn = torch.stack((masks.context.indices[:, 0, 0], masks.target.indices[:, 0, 0]), dim=1)
    pairs = Counter(map(tuple, corners_drawn.tolist()))
    corners = [row * 4 + column for row in range(3) for column in range(3)]
    expected = {}
    for context in corners:
        free = [
            target
            for target in corners
            if not oracles.block(context // 4, context % 4, 2, 2, 4) & oracles.block(target // 4, target % 4, 2, 2, 4)
        ]
        expected |= {(context, target): 1 / 8 / len(free) for target in free}
    assert set(pairs) == set(expected)
    for pair, probability in expected.items():
        error = (probability * (1 - probability) / 10_000) ** 0.5
        assert pairs[pair] / 10_000 == pytest.approx(probability, abs=4.5 * error)


def test_targets_of_an_image_are_placed_independently_and_may_overlap() -> None:
    masks = make(Grid(4, 4), **FIXED).sample(4000, seeded(0))
    together = Counter(len(first & second) for first, second in targets_of(masks))
    assert {0, 4} <= set(together)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_patch_can_be_context_and_target(grid: Grid) -> None:
    masks = make(grid).sample(2000, seeded(0))
    assert masks.context.coverage(grid.num_patches).flatten(0, 1).any(dim=0).all()
    assert masks.target.coverage(grid.num_patches).flatten(0, 1).any(dim=0).all()


def test_no_count_exceeds_the_declared_maximum_and_the_largest_target_occurs(monkeypatch: pytest.MonkeyPatch) -> None:
    masker = make(Grid(4, 5), num_context_blocks=2, context_scale=(0.2, 0.5), target_scale=(0.1, 0.6), num_targets=2)
    with record_largest_counts(monkeypatch, multi_context) as largest:
        generator = seeded(0)
        for _ in range(60):
            masker.sample(64, generator)
    assert largest[0] <= masker.max_context_patches
    assert largest[1] == masker.max_target_patches


def test_a_context_block_is_as_large_as_the_target_beside_it_allows() -> None:
    masker = make(Grid(4, 4), num_context_blocks=1, context_scale=(0.5, 1.0), target_scale=(0.07, 0.07))
    masks = masker.sample(500, seeded(0))
    assert masks.context.counts().max() == masker.max_context_patches == 12


@pytest.mark.parametrize("fewest", [20, 36])
def test_images_are_drawn_again_until_the_context_is_large_enough(fewest: int) -> None:
    masks = make(Grid(8, 8), min_context_patches=fewest).sample(500, seeded(0))
    assert masks.context.counts().min() >= fewest


def test_settings_that_leave_targets_no_room_are_refused_with_grid_and_numbers() -> None:
    with pytest.raises(ConfigError) as refusal:
        make(Grid(8, 8), context_scale=(0.9, 1.0), context_aspect_ratio=(1.0, 1.0))
    for part in (
        "multi_context",
        "8x8",
        "0 leave room",
        "num_context_blocks=4",
        "context_scale=(0.9, 1.0)",
        "num_targets=2",
        "target_scale=(0.1, 0.15)",
        "min_context_patches=4",
        "lower num_context_blocks",
    ):
        assert part in str(refusal.value)
    with pytest.raises(ConfigError, match=r"2x2 grid.*\d{3,} leave room.*min_context_patches=4"):
        make(Grid(2, 2))
    with pytest.raises(ConfigError, match="num_context_blocks=64"):
        make(Grid(14, 14), num_context_blocks=64)


def test_drawing_again_ends_with_an_error_and_never_with_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    masker = make(Grid(8, 8), num_context_blocks=16)
    monkeypatch.setattr(redraw, "MAX_ROUNDS", 1)
    with pytest.raises(RunStopped, match=r"32 draws of masker multi_context on the 8x8 grid.*lower num_context_blocks"):
        masker.sample(2000, seeded(0))


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("target_scale", (0.3, 0.2), "0 < min <= max <= 1, got (0.3, 0.2)"),
        ("context_scale", (0.5, 1.1), "0 < min <= max <= 1, got (0.5, 1.1)"),
        ("target_aspect_ratio", (-1.0, 1.0), "0 < min <= max, got (-1.0, 1.0)"),
        ("context_aspect_ratio", (2.0, 1.0), "0 < min <= max, got (2.0, 1.0)"),
    ],
)
def test_ranges_are_validated_with_field_rule_and_value(field: str, value: Any, rule: str) -> None:
    with pytest.raises(ValidationError) as error:
        MultiContext.Params(**{field: value})
    assert f"{field} must satisfy {rule}" in str(error.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_sampling_does_not_wait_for_the_device(grid: Grid) -> None:
    masker = make(grid)
    generator = torch.Generator("cuda").manual_seed(0)
    masker.sample(64, generator)  # the tables reach the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        masks = masker.sample(64, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert masks.context.indices.is_cuda
    assert masks.context.counts().min() >= 4
