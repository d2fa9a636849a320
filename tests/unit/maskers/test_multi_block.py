"""The paper's masker."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.grid import Grid
from jepa_lab.maskers import multi_block, redraw
from jepa_lab.maskers.multi_block import MultiBlock
from tests.unit.maskers import oracles
from tests.unit.maskers.reading import contexts_of, record_largest_counts, seeded, sizes_of, targets_of

GRIDS = [Grid(8, 8), Grid(14, 14), Grid(7, 10)]
SHARING = ["batch", "image", "block"]


def make(grid: Grid, **params: Any) -> MultiBlock:
    return MultiBlock(MultiBlock.Params(**params), grid)


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_target_blocks_never_overlap_the_context(grid: Grid, sharing: str) -> None:
    masker = make(grid, block_sizes=sharing)
    for seed in range(20):
        masks = masker.sample(32, seeded(seed))
        for (context,), targets in zip(contexts_of(masks), targets_of(masks), strict=True):
            assert len(context) >= 4
            assert not context & set().union(*targets)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_patch_can_be_context_and_target(grid: Grid) -> None:
    masks = make(grid).sample(2000, seeded(0))
    context = masks.context.coverage(grid.num_patches)
    target = masks.target.coverage(grid.num_patches)
    assert context.any(dim=0).all()
    assert target.flatten(0, 1).any(dim=0).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_coverage_by_targets_is_that_of_uniform_positions(grid: Grid) -> None:
    scale = 12.2 / grid.num_patches
    masker = make(grid, target_scale=(scale, scale), target_aspect_ratio=(0.75, 0.75), min_context_patches=1)
    height, width = 3, 4
    masks = masker.sample(4000, seeded(0))
    assert {size for sizes in sizes_of(masks, grid) for size in sizes} == {(height, width)}

    exact = torch.zeros(grid.height, grid.width)
    tops, lefts = grid.height - height + 1, grid.width - width + 1
    for top in range(tops):
        for left in range(lefts):
            exact[top : top + height, left : left + width] += 1 / (tops * lefts)
    covered = masks.target.coverage(grid.num_patches).flatten(0, 1)
    seen = covered.double().mean(dim=0).reshape(grid.height, grid.width)
    assert (seen - exact).abs().max() < 5 * (0.25 / len(covered)) ** 0.5
    assert seen[-1, -1] == pytest.approx(1 / (tops * lefts), rel=0.25)


def test_sizes_are_shared_by_the_batch_the_image_or_nobody() -> None:
    grid = Grid(14, 14)
    distinct_sizes, images_of_one_size = {}, {}
    for sharing in SHARING:
        sizes = sizes_of(make(grid, block_sizes=sharing).sample(100, seeded(0)), grid)
        distinct_sizes[sharing] = len({size for image in sizes for size in image})
        images_of_one_size[sharing] = sum(len(set(image)) == 1 for image in sizes)
    assert distinct_sizes["batch"] == 1
    assert distinct_sizes["image"] > 5
    assert distinct_sizes["block"] > 5
    assert images_of_one_size["image"] == 100
    assert images_of_one_size["block"] < 20


def test_sizes_shared_by_the_batch_change_from_batch_to_batch() -> None:
    grid, generator = Grid(14, 14), seeded(0)
    masker = make(grid, block_sizes="batch")
    assert len({sizes_of(masker.sample(1, generator), grid)[0][0] for _ in range(60)}) > 5


@pytest.mark.parametrize("hidden", [0, 2])
@pytest.mark.parametrize("min_context", [4, 34])
@pytest.mark.parametrize("sharing", ["image", "block"])
def test_counts_agree_with_a_masker_of_python_loops(sharing: str, min_context: int, hidden: int) -> None:
    """With 34 about two thirds of the first draws are rejected, and nearly all where blocks are hidden, too."""
    scales = {"target_scale": (0.1, 0.3), "context_scale": (0.7, 1.0), "hidden_scale": (0.05, 0.2)}
    min_context = min_context if hidden == 0 else min(min_context, 20)
    masker = make(Grid(8, 8), **scales, block_sizes=sharing, min_context_patches=min_context, num_hidden_blocks=hidden)
    masks = masker.sample(10_000, seeded(0))
    union = masks.target.coverage(64).any(dim=1).sum(dim=-1)
    rng = random.Random(0)
    images = [
        oracles.paper_image(
            rng,
            (8, 8),
            num_targets=4,
            min_context=min_context,
            size_per_block=sharing == "block",
            target_scale=scales["target_scale"],
            context_scale=scales["context_scale"],
            num_hidden=hidden,
            hidden_scale=scales["hidden_scale"],
        )
        for _ in range(2500)
    ]
    measured = {
        "context": (masks.context.counts().flatten(), [len(context) for context, _ in images]),
        "target": (masks.target.counts()[:, 0], [len(targets[0]) for _, targets in images]),
        "union": (union, [len(set().union(*targets)) for _, targets in images]),
    }
    assert masks.context.counts().min() >= min_context
    for ours, theirs in measured.values():
        spread = statistics.stdev(theirs)
        assert ours.double().mean().item() == pytest.approx(statistics.mean(theirs), abs=4.5 * spread / 2500**0.5)
        assert ours.double().std().item() == pytest.approx(spread, rel=0.08)


@pytest.mark.parametrize("sharing", SHARING)
def test_hidden_blocks_are_taken_out_of_the_context_and_are_no_targets(sharing: str) -> None:
    """What is neither context nor target of a context block that is the whole grid lies in one block of their size."""
    grid = Grid(14, 14)
    hidden = {"num_hidden_blocks": 1, "hidden_scale": (0.2, 0.2), "hidden_aspect_ratio": (1.0, 1.0)}
    masks = make(grid, num_targets=2, context_scale=(1.0, 1.0), block_sizes=sharing, **hidden).sample(500, seeded(0))
    whole, side = 0, 6
    for (context,), targets in zip(contexts_of(masks), targets_of(masks), strict=True):
        target = set().union(*targets)
        assert not context & target
        left = set(range(grid.num_patches)) - context - target
        rows, columns = {patch // 14 for patch in left}, {patch % 14 for patch in left}
        assert max(rows, default=0) - min(rows, default=0) < side
        assert max(columns, default=0) - min(columns, default=0) < side
        whole += len(left) == side**2
    assert 20 < whole < 400  # otherwise it shares patches with a target


def test_without_hidden_blocks_the_same_masks_are_drawn_whatever_their_size() -> None:
    plain, sized = make(Grid(8, 8)), make(Grid(8, 8), hidden_scale=(0.5, 0.6))
    first, second = plain.sample(16, seeded(3)), sized.sample(16, seeded(3))
    assert torch.equal(first.context.indices, second.context.indices)
    assert torch.equal(first.target.indices, second.target.indices)


def test_hidden_blocks_that_leave_no_context_are_refused_with_their_numbers() -> None:
    hidden = {"num_hidden_blocks": 200, "hidden_scale": (0.3, 0.3)}
    with pytest.raises(
        ConfigError, match=r"num_hidden_blocks=200, hidden_scale=\(0\.3, 0\.3\).*lower .*num_hidden_blocks"
    ):
        make(Grid(8, 8), **hidden)
    with pytest.raises(ConfigError, match=r"target blocks, .* hidden blocks and a .* for the whole batch"):
        make(Grid(8, 8), num_hidden_blocks=2, hidden_scale=(0.15, 0.9), block_sizes="batch")


def test_the_declared_maximum_of_a_context_with_hidden_blocks_is_never_exceeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masker = make(Grid(4, 5), target_scale=(0.05, 0.2), num_targets=1, num_hidden_blocks=1, hidden_scale=(0.3, 0.3))
    with record_largest_counts(monkeypatch, multi_block) as largest:
        generator = seeded(0)
        for _ in range(300):
            masker.sample(64, generator)
    assert largest == [masker.max_context_patches, masker.max_target_patches] == [14, 4]


def test_scale_and_aspect_ratio_are_independent_draws() -> None:
    """One uniform for both would make the smallest block the flattest; here area says little about shape."""
    grid = Grid(28, 28)
    sizes = [size for image in sizes_of(make(grid).sample(1000, seeded(0)), grid) for size in image]
    areas = torch.tensor([float(h * w) for h, w in sizes])
    shapes = torch.tensor([h / w for h, w in sizes])
    assert torch.corrcoef(torch.stack((areas, shapes)))[0, 1].abs() < 0.15


def test_images_of_a_batch_get_independent_masks() -> None:
    masks = make(Grid(14, 14)).sample(64, seeded(0))
    assert len({tuple(row) for row in masks.target.indices.flatten(1).tolist()}) == 64
    corners = masks.target.indices[:, :, 0].double()  # first patch of every block
    correlation = torch.corrcoef(torch.stack((corners[:-1].flatten(), corners[1:].flatten())))[0, 1]
    assert correlation.abs() < 0.25


def test_the_generator_state_decides_the_masks() -> None:
    masker, generator = make(Grid(8, 8)), seeded(7)
    state = generator.get_state()
    first, second = masker.sample(16, generator), masker.sample(16, generator)
    generator.set_state(state)
    again = masker.sample(16, generator)
    assert torch.equal(first.context.indices, again.context.indices)
    assert torch.equal(first.target.indices, again.target.indices)
    assert not torch.equal(first.target.indices, second.target.indices)


@pytest.mark.parametrize("sharing", SHARING)
def test_rare_contexts_are_drawn_until_every_image_has_one(sharing: str) -> None:
    fewest = {"batch": 29, "image": 40, "block": 40}[sharing]
    masker = make(Grid(8, 8), min_context_patches=fewest, block_sizes=sharing)
    for seed in range(3):
        assert masker.sample(128, seeded(seed)).context.counts().min() >= fewest


def test_drawing_again_ends_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    masker = make(Grid(8, 8), min_context_patches=43)
    monkeypatch.setattr(redraw, "MAX_ROUNDS", 1)
    with pytest.raises(RunStopped, match=r"8x8 grid.*min_context_patches=43.*lower target_scale"):
        masker.sample(500, seeded(0))


@pytest.mark.parametrize("sharing", SHARING)
def test_declared_maxima_are_attained_and_never_exceeded(sharing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masker = make(Grid(4, 5), target_scale=(0.2, 0.5), context_scale=(0.6, 1.0), num_targets=2, block_sizes=sharing)
    with record_largest_counts(monkeypatch, multi_block) as largest:
        generator = seeded(0)
        for _ in range(300):
            masker.sample(64, generator)
    assert largest == [masker.max_context_patches, masker.max_target_patches]


def test_largest_context_is_what_the_smallest_block_in_the_opposite_corner_leaves() -> None:
    assert make(Grid(8, 8)).max_context_patches == 64 - 8  # 4x2 is the smallest target
    assert make(Grid(8, 8), context_scale=(0.6, 0.6)).max_context_patches == 36
    # Blocks so large that no context would be left never occur in a valid draw.
    assert make(Grid(4, 4), target_scale=(0.3, 1.0), num_targets=1).max_target_patches == 12


def test_a_block_may_be_as_large_as_the_grid() -> None:
    masker = make(Grid(6, 6), target_scale=(0.1, 0.1), num_targets=1, context_scale=(1.0, 1.0), min_context_patches=1)
    masks = masker.sample(50, seeded(0))
    for (context,), (target,) in zip(contexts_of(masks), targets_of(masks), strict=True):
        assert context | target == set(range(36))


def test_settings_that_leave_no_context_are_refused_with_grid_and_numbers() -> None:
    with pytest.raises(ConfigError) as refusal:
        make(Grid(8, 8), target_scale=(0.95, 1.0), target_aspect_ratio=(1.0, 1.0))
    message = str(refusal.value)
    for part in (
        "multi_block",
        "8x8",
        "min_context_patches=4",
        "(0.95, 1.0)",
        "num_targets=4",
        "lower target_scale",
    ):
        assert part in message
    with pytest.raises(ConfigError, match="min_context_patches=64"):
        make(Grid(8, 8), min_context_patches=64)
    with pytest.raises(ConfigError, match="num_targets=256"):
        make(Grid(14, 14), num_targets=256)


def test_sizes_shared_by_a_batch_must_all_be_feasible() -> None:
    """The mean draw is fine, but a batch that gets the largest blocks would never find enough context."""
    params = {"target_scale": (0.15, 0.95)}
    make(Grid(8, 8), **params)
    with pytest.raises(ConfigError, match=r"target blocks and a .* context block for the whole batch.*image"):
        make(Grid(8, 8), **params, block_sizes="batch")


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("target_scale", (0.3, 0.2), "0 < min <= max <= 1, got (0.3, 0.2)"),
        ("target_scale", (0.0, 0.2), "0 < min <= max <= 1, got (0.0, 0.2)"),
        ("context_scale", (0.5, 1.1), "0 < min <= max <= 1, got (0.5, 1.1)"),
        ("target_aspect_ratio", (-1.0, 1.0), "0 < min <= max, got (-1.0, 1.0)"),
        ("context_aspect_ratio", (2.0, 1.0), "0 < min <= max, got (2.0, 1.0)"),
    ],
)
def test_ranges_are_validated_with_field_rule_and_value(field: str, value: Any, rule: str) -> None:
    with pytest.raises(ValidationError) as error:
        MultiBlock.Params(**{field: value})
    assert f"{field} must satisfy {rule}" in str(error.value)
    assert error.value.errors()[0]["loc"] == (field,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("sharing", SHARING)
def test_sampling_does_not_wait_for_the_device(sharing: str) -> None:
    masker = make(Grid(8, 8), block_sizes=sharing)
    generator = torch.Generator("cuda").manual_seed(0)
    masker.sample(64, generator)  # the tables reach the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        masks = masker.sample(64, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert masks.context.indices.is_cuda
    assert masks.context.counts().min() >= 4
