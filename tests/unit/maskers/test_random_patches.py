"""Random patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers.random_patches import RandomPatches
from tests.unit.maskers.reading import contexts_of, seeded, targets_of


def make(grid: Grid, **params: Any) -> RandomPatches:
    return RandomPatches(RandomPatches.Params(**params), grid)


def test_every_patch_is_either_context_or_target() -> None:
    for seed in range(10):
        masks = make(Grid(7, 10)).sample(16, seeded(seed))
        for (context,), (target,) in zip(contexts_of(masks), targets_of(masks), strict=True):
            assert context | target == set(range(70))
            assert not context & target
            assert 28 <= len(context) <= 41  # int(70 * (1 - ratio)), ratio strictly below 0.6 and above 0.4


def test_the_ratio_is_shared_by_the_batch_unless_drawn_per_image() -> None:
    generator = seeded(0)
    shared, own = make(Grid(8, 8)), make(Grid(8, 8), ratio_per="image")
    counts = [set(shared.sample(32, generator).context.counts().flatten().tolist()) for _ in range(40)]
    assert all(len(count) == 1 for count in counts)
    assert len(set().union(*counts)) > 8
    assert len(set(own.sample(200, generator).context.counts().flatten().tolist())) > 10


def test_counts_follow_the_uniform_ratio() -> None:
    masks = make(Grid(8, 8), ratio_per="image").sample(20_000, seeded(0))
    ratio = torch.rand(20_000, generator=seeded(1), dtype=torch.float64) * 0.2 + 0.4
    expected = (64 * (1 - ratio)).long()
    counts = masks.context.counts().flatten()
    for count in range(26, 39):
        difference = (counts == count).double().mean() - (expected == count).double().mean()
        assert abs(difference.item()) < 0.012
    assert masks.context.counts().max() == 38
    assert (masks.context.shape[-1], masks.target.shape[-1]) == (38, 39)


def test_every_patch_is_equally_often_context_and_pairs_are_unrelated() -> None:
    masks = make(Grid(4, 4), target_ratio=(0.5, 0.5)).sample(20_000, seeded(0))
    assert masks.context.valid is None
    assert masks.target.valid is None
    is_context = masks.context.coverage(16)[:, 0].double()
    pairs = is_context.T @ is_context / 20_000
    expected = torch.full((16, 16), (8 / 16) * (7 / 15), dtype=torch.float64)
    expected.fill_diagonal_(0.5)
    assert (pairs - expected).abs().max() < 5 * (0.25 / 20_000) ** 0.5


def test_counts_below_the_minimum_are_not_drawn_and_impossible_ratios_are_refused() -> None:
    masker = make(Grid(4, 4), target_ratio=(0.5, 0.95), min_context_patches=5)
    generator = seeded(0)
    assert min(int(masker.sample(8, generator).context.counts().min()) for _ in range(200)) == 5
    with pytest.raises(ConfigError, match=r"random.*4x4 grid target_ratio=\(0.9, 0.95\).*at most 1 of 16.*=4"):
        make(Grid(4, 4), target_ratio=(0.9, 0.95))


def test_at_least_one_patch_is_target() -> None:
    masks = make(Grid(4, 4), target_ratio=(0.001, 0.001)).sample(8, seeded(0))
    assert masks.target.counts().eq(1).all()


def test_ratio_is_validated() -> None:
    with pytest.raises(ValidationError, match=r"target_ratio must satisfy 0 < min <= max < 1, got \(0.5"):
        RandomPatches.Params(target_ratio=(0.5, 1.0))
