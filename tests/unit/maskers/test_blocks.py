"""Sizes, positions and coverage of blocks."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.maskers.blocks import (
    block_sizes,
    block_sizes_from_one_draw,
    cover,
    draw_positions,
    largest_remainder,
    marked_inside,
    smallest_remainder,
)
from jepa_lab.maskers.discrete import Discrete, floor_probabilities
from jepa_lab.maskers.patches import patches_of
from tests.unit.maskers import oracles
from tests.unit.maskers.reading import as_sets, seeded

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
