"""Sizes, positions and coverage of blocks."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.maskers.block_params import BlockParams
from jepa_lab.maskers.blocks import (
    cover,
    draw_positions,
    largest_remainder,
    marked_inside,
    smallest_remainder,
)
from jepa_lab.maskers.discrete import Discrete, floor_probabilities
from jepa_lab.maskers.multi_block import MultiBlock
from jepa_lab.maskers.multi_context import MultiContext
from jepa_lab.maskers.patches import patches_of
from jepa_lab.maskers.shapes import block_sizes, block_sizes_from_one_draw
from jepa_lab.maskers.single_block import SingleBlock
from tests.unit.maskers import oracles
from tests.unit.maskers.reading import as_sets, seeded, sizes_of

CASES = [
    (Grid(14, 14), (0.15, 0.2), (0.75, 1.5)),
    (Grid(8, 8), (0.15, 0.25), (0.75, 1.5)),
    (Grid(7, 10), (0.05, 0.9), (0.3, 3.0)),
    (Grid(4, 4), (0.01, 1.0), (1.0, 1.0)),
    (Grid(8, 8), (0.25, 0.25), (0.5, 2.0)),
]


@pytest.mark.parametrize("one_draw", [False, True])
@pytest.mark.parametrize(("grid", "scale", "aspect_ratio"), CASES)
def test_size_probabilities_agree_with_drawing_scale_and_aspect(
    grid: Grid, scale: tuple[float, float], aspect_ratio: tuple[float, float], one_draw: bool
) -> None:
    make = block_sizes_from_one_draw if one_draw else block_sizes
    expected = make(grid.num_patches, scale, aspect_ratio, limit=grid).probabilities
    rng, draws, smallest = random.Random(0), 20_000, 0 if one_draw else 1
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(draws):
        u = rng.random()
        v = u if one_draw else rng.random()
        height, width = oracles.block_size(
            grid.num_patches,
            scale[0] + u * (scale[1] - scale[0]),
            aspect_ratio[0] + v * (aspect_ratio[1] - aspect_ratio[0]),
        )
        seen[max(smallest, min(height, grid.height)), max(smallest, min(width, grid.width))] += 1
    assert set(seen) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1.0)
    for size, probability in expected.items():
        assert seen[size] / draws == pytest.approx(probability, abs=5 * (probability / draws) ** 0.5 + 1e-4)


def counted_sizes(
    grid: Grid, scale: tuple[float, float], aspect_ratio: tuple[float, float], params: BlockParams, draws: int
) -> Counter[tuple[int, ...]]:
    """Sizes of blocks by drawing scale and aspect ratio, one block at a time."""
    rng, seen = random.Random(0), Counter[tuple[int, ...]]()
    how = params.aspect_ratio_is, params.block_rounding
    for _ in range(draws):
        drawn = rng.uniform(*scale), rng.uniform(*aspect_ratio)
        height, width = oracles.any_block_size(grid.num_patches, *drawn, *how)
        seen[max(1, min(height, grid.height)), max(1, min(width, grid.width))] += 1
    return seen


@pytest.mark.parametrize("rounding", ["each_side", "one_from_other", "one_from_other_exact_area"])
@pytest.mark.parametrize("divided", ["height_over_width", "width_over_height"])
@pytest.mark.parametrize(
    ("grid", "scale", "aspect_ratio"),
    [*CASES, (Grid(5, 3), (0.3, 0.3), (1.3, 1.3)), (Grid(4, 4), (0.1, 1), (0.01, 90))],
)
def test_probabilities_of_every_way_to_a_block_agree_with_drawing(
    grid: Grid, scale: tuple[float, float], aspect_ratio: tuple[float, float], divided: Any, rounding: Any
) -> None:
    params, draws = BlockParams(aspect_ratio_is=divided, block_rounding=rounding), 20_000
    expected = params.sizes(grid, scale, aspect_ratio).probabilities
    seen = counted_sizes(grid, scale, aspect_ratio, params, draws)
    assert set(seen) <= set(expected)
    for size, probability in expected.items():
        assert seen[size] / draws == pytest.approx(probability, abs=5 * (probability / draws) ** 0.5 + 1e-4)


def test_extreme_aspect_ratios_give_strips_in_no_time() -> None:
    for rounding in ("one_from_other", "one_from_other_exact_area"):
        params = BlockParams(aspect_ratio_is="width_over_height", block_rounding=rounding)
        assert params.sizes(Grid(4, 6), (0.5, 1.0), (1e-300, 1e-290)).outcomes == [(4, 1)]
        assert params.sizes(Grid(4, 6), (0.5, 1.0), (1e290, 1e300)).outcomes == [(1, 1)]  # a height that rounds to 0


def test_on_the_8x8_grid_blocks_are_taller_than_wide_or_wider_than_tall_as_the_aspect_ratio_says() -> None:
    def wider_and_taller(**params: Any) -> tuple[float, float]:
        sizes = BlockParams(**params).sizes(Grid(8, 8), (0.15, 0.25), (0.75, 1.5))
        return sizes.probability(lambda size: size[1] > size[0]), sizes.probability(lambda size: size[0] > size[1])

    assert wider_and_taller() == pytest.approx((0.172, 0.472), abs=1e-3)
    assert wider_and_taller(aspect_ratio_is="width_over_height") == pytest.approx((0.472, 0.172), abs=1e-3)
    document = {"aspect_ratio_is": "width_over_height", "block_rounding": "one_from_other"}
    assert wider_and_taller(**document) == pytest.approx((0.457, 0.154), abs=1e-3)


@pytest.mark.parametrize("masker", [MultiBlock, MultiContext, SingleBlock])
@pytest.mark.parametrize("divided", ["height_over_width", "width_over_height"])
def test_every_masker_of_blocks_draws_them_as_the_aspect_ratio_says(masker: Any, divided: str) -> None:
    params = {"aspect_ratio_is": divided, "target_scale": (0.1, 0.15), "target_aspect_ratio": (1.5, 2.5)}
    masks = masker(masker.Params(**params), Grid(8, 8)).sample(200, seeded(0))
    sizes = [size for image in sizes_of(masks, Grid(8, 8)) for size in image]
    assert all(height > width if divided == "height_over_width" else width > height for height, width in sizes)


def test_the_released_code_draws_5_of_the_11_shapes_of_independent_draws() -> None:
    arguments = (196, (0.15, 0.2), (0.75, 1.5), Grid(14, 14))
    together = set(block_sizes_from_one_draw(*arguments).outcomes)
    independent = set(block_sizes(*arguments).outcomes)
    assert (len(together), len(independent)) == (5, 11)
    assert together < independent


def test_floor_probabilities_are_the_shares_of_the_unit_intervals() -> None:
    assert floor_probabilities(2.5, 4.25) == pytest.approx({2: 0.5 / 1.75, 3: 1 / 1.75, 4: 0.25 / 1.75})
    assert floor_probabilities(3.0, 3.0) == {3: 1.0}
    assert floor_probabilities(3.0, 5.0) == pytest.approx({3: 0.5, 4: 0.5})


def test_discrete_draws_follow_the_probabilities_and_conditioning_renormalises() -> None:
    distribution = Discrete({(1, 7): 0.1, (2, 5): 0.6, (3, 3): 0.3, (4, 4): 1e-15})
    assert distribution.outcomes == [(1, 7), (2, 5), (3, 3)]
    first, second = distribution.draw((100, 200), seeded(0))
    assert first.shape == second.shape == (100, 200)
    assert {(1, 7), (2, 5), (3, 3)} == set(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True))
    for outcome, probability in distribution.probabilities.items():
        assert (first == outcome[0]).double().mean().item() == pytest.approx(probability, abs=0.02)
    assert distribution.given(lambda outcome: outcome[0] > 1).probabilities == pytest.approx(
        {(2, 5): 2 / 3, (3, 3): 1 / 3}
    )


def test_positions_are_uniform_and_independent_over_every_place_that_fits() -> None:
    height, width = torch.tensor([3, 8]).expand(20_000, 2), torch.tensor([7, 9]).expand(20_000, 2)
    top, left = draw_positions(height, width, Grid(8, 9), seeded(0))
    assert top[:, 1].eq(0).all()
    assert left[:, 1].eq(0).all()
    pairs = torch.bincount(top[:, 0] * 3 + left[:, 0], minlength=18)  # 6 rows, 3 columns
    assert len(pairs) == 18
    assert (pairs - 20_000 / 18).abs().max() < 5 * (20_000 / 18) ** 0.5


def test_cover_marks_the_rectangle() -> None:
    grid = Grid(7, 10)
    boxes = [(0, 0, 7, 10), (2, 3, 4, 5), (6, 9, 1, 1), (0, 7, 2, 3)]
    covered = cover(*torch.tensor(boxes).T, grid=grid)
    for row, (top, left, height, width) in zip(covered, boxes, strict=True):
        assert set(row.nonzero().flatten().tolist()) == oracles.block(top, left, height, width, 10)


def test_patches_and_coverage_are_inverse_and_padding_is_zero() -> None:
    coverage = torch.rand(5, 3, 70, generator=seeded(0)) < torch.rand(5, 3, 1, generator=seeded(1))
    coverage[0, 0], coverage[0, 1] = True, False
    patches = patches_of(coverage, 70)
    assert torch.equal(patches.coverage(70), coverage)
    assert patches.indices.masked_select(~patches.validity()).eq(0).all()
    for rows, sets in zip(coverage, as_sets(patches), strict=True):
        for row, found in zip(rows, sets, strict=True):
            assert sorted(found) == row.nonzero().flatten().tolist()


def test_remainders_are_the_extremes_over_all_positions() -> None:
    room = Grid(5, 6)

    def positions(size: tuple[int, int]) -> list[set[int]]:
        tops, lefts = range(room.height - size[0] + 1), range(room.width - size[1] + 1)
        return [oracles.block(top, left, *size, room.width) for top, left in product(tops, lefts)]

    for context, target in product([(5, 6), (4, 4), (3, 6), (2, 2)], [(5, 6), (3, 3), (2, 5), (1, 1)]):
        left = [len(c - t) for c in positions(context) for t in positions(target)]
        assert largest_remainder(context, target, room) == max(left)
        assert smallest_remainder(context, target) == min(left)


@pytest.mark.parametrize("grid", [Grid(4, 4), Grid(3, 7)], ids=str)
def test_marked_patches_inside_a_block_are_counted_at_every_position(grid: Grid) -> None:
    marked = torch.rand(5, 1, grid.num_patches, generator=seeded(0)) < 0.4
    height, width = torch.tensor([[1, 2, 3]] * 5), torch.tensor([[1, 3, 2]] * 5)
    counts = marked_inside(marked, height, width, grid)
    assert counts.shape == (5, 3, grid.num_patches)
    for image, size in product(range(5), range(3)):
        h, w = int(height[image, size]), int(width[image, size])
        for top, left in product(range(grid.height - h + 1), range(grid.width - w + 1)):
            inside = marked[image, 0].reshape(grid.height, grid.width)[top : top + h, left : left + w].sum()
            assert counts[image, size, top * grid.width + left] == inside
