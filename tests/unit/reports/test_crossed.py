"""Intervals over seeds and images: the analysis of variance as an oracle, and simulated coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import World
from jepa_lab.reports.crossed import CrossedEstimate, crossed_estimate
from jepa_lab.reports.detection import ImageVariance, detection_power, minimum_detectable_effect
from jepa_lab.reports.image_scores import crossed_comparison
from jepa_lab.reports.multiplicity import p_of_being_best
from jepa_lab.reports.statistics import paired_comparison, paired_t_p
from tests.unit.reports.image_worlds import scored


def of(differences: np.ndarray) -> CrossedEstimate:
    """All seeds on the same images, [S, n]."""
    return crossed_estimate(list(differences), [np.arange(differences.shape[1])] * len(differences))


def mean_squares(differences: np.ndarray) -> tuple[float, float, float]:
    """Of seeds, of images and of the rest."""
    num_seeds, num_images = differences.shape
    of_seeds, of_images, mean = differences.mean(axis=1), differences.mean(axis=0), differences.mean()
    rest = differences - of_seeds[:, None] - of_images + mean
    return (
        num_images * of_seeds.var(ddof=1),
        num_seeds * of_images.var(ddof=1),
        (rest**2).sum() / ((num_seeds - 1) * (num_images - 1)),
    )


@pytest.mark.parametrize(("num_seeds", "num_images"), [(2, 30), (3, 287), (5, 400)])
def test_on_the_same_images_the_variance_is_that_of_the_analysis_of_variance(num_seeds: int, num_images: int) -> None:
    random = np.random.default_rng(num_seeds)
    found = random.integers(-1, 2, (num_seeds, num_images)) + random.standard_normal(num_images)
    seeds, images, rest = mean_squares(found)
    estimate, whole = of(found), seeds + images - rest
    assert estimate.mean == pytest.approx(found.mean())
    assert estimate.variance == pytest.approx(whole / (num_seeds * num_images))
    squares = seeds**2 / (num_seeds - 1) + images**2 / (num_images - 1)
    squares += rest**2 / ((num_seeds - 1) * (num_images - 1))
    assert estimate.degrees == pytest.approx(max(1.0, whole**2 / squares), rel=0.1)


def test_seeds_without_an_image_in_common_have_student_s_interval() -> None:
    random = np.random.default_rng(0)
    found = [random.standard_normal(40) for _ in range(4)]
    estimate = crossed_estimate(found, [np.arange(40) + 100 * seed for seed in range(4)])
    means = [float(each.mean()) for each in found]
    assert estimate.of_images == 0
    low, high = stats.t.interval(0.95, 3, np.mean(means), stats.sem(means))
    assert estimate.half_width(0.95) == pytest.approx((high - low) / 2)
    assert estimate.p(no_spread=1.0) == pytest.approx(paired_t_p(means))


def test_the_order_of_the_images_is_no_matter() -> None:
    random = np.random.default_rng(1)
    found, order = random.integers(-1, 2, (3, 50)).astype(float), random.permutation(50)
    mixed = crossed_estimate([found[0], found[1][order], found[2]], [np.arange(50), order, np.arange(50)])
    assert mixed.variance == pytest.approx(of(found).variance)


def test_the_interval_and_the_p_agree_and_are_never_those_of_more_certainty_than_over_seeds() -> None:
    random = np.random.default_rng(2)
    for _ in range(200):
        found = World(3, 60, float(random.choice([0, 1, 2])), effect=0.5).arms(random)
        differences = found[1].astype(float) - found[0]
        estimate, values = of(differences), [float(each.mean()) for each in differences]
        if estimate.of_seeds == 0:
            continue
        p, over_seeds = estimate.p(no_spread=math.nan), paired_t_p(values)
        half = stats.t.ppf(0.975, 2) * stats.sem(values)
        assert p >= over_seeds - 1e-12
        assert estimate.half_width(0.95) >= half - 1e-12
        assert (abs(estimate.mean) > estimate.half_width(0.95)) == (p < 0.05)
        assert abs(estimate.mean) == pytest.approx(estimate.half_width(1 - p), rel=1e-6, abs=1e-9)


def test_differences_without_spread_over_seeds_have_no_interval_and_no_p() -> None:
    same = paired_comparison({0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.25}, both([[1, 0, 1, 0]] * 2, [[0, 0, 1, 0]] * 2))
    assert same.crossed is not None
    assert math.isnan(same.p)
    assert math.isnan(same.over_images.low)
    alike = paired_comparison({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}, both([[1, 0, 1, 0]] * 2, [[0, 1, 1, 0]] * 2))
    assert alike.p == 1


def both(arm: list[list[int]], baseline: list[list[int]]):  # type: ignore[no-untyped-def]
    return tuple({seed: scored(np.array(row)) for seed, row in enumerate(rows)} for rows in (arm, baseline))


def test_images_are_used_only_where_they_are_the_same_and_give_the_values() -> None:
    arm, baseline = both([[1, 0, 1, 0], [1, 1, 1, 0]], [[0, 0, 1, 0], [0, 0, 1, 1]])
    values = ({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5})
    assert crossed_comparison(values, (arm, baseline)) is not None
    assert crossed_comparison(({0: 0.5, 1: 0.7}, values[1]), (arm, baseline)) is None
    assert crossed_comparison(values, ({0: arm[0]}, baseline)) is None
    assert crossed_comparison(({0: 0.5}, {0: 0.25}), (arm, baseline)) is None
    moved = {**arm, 1: replace(arm[1], positions=arm[1].positions + 1)}
    assert crossed_comparison(values, (moved, baseline)) is None
    others = replace(arm[1].images, dataset="another")
    apart = tuple({**each, 1: replace(each[1], images=others)} for each in (arm, baseline))
    assert crossed_comparison(values, apart) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_seeds", "interaction", "of_seed"), [(3, 0.0, 0.1), (3, 1.0, 0.0), (5, 2.0, 0.1)])
def test_the_interval_covers_the_truth_about_the_population(num_seeds: int, interaction: float, of_seed: float) -> None:
    world, random, tables = World(num_seeds, 287, interaction, of_seed), np.random.default_rng(40), 1200
    covered = over_seeds = 0
    for _ in range(tables):
        found = world.arms(random)
        estimate = of(found[1].astype(float) - found[0])
        covered += abs(estimate.mean) <= estimate.half_width(0.95)
        over_seeds += abs(estimate.mean) <= stats.t.ppf(0.975, num_seeds - 1) * math.sqrt(estimate.of_seeds)
    assert 0.93 <= covered / tables <= (0.97 if interaction else 1)
    if interaction == 2:
        assert over_seeds / tables < 0.85, "an interval over seeds alone says nothing about other images"


def test_the_interval_covers_a_true_difference_as_well() -> None:
    world, random, tables = World(3, 500, 1.0, effect=0.5), np.random.default_rng(41), 1000
    truth, covered = world.true_difference(), 0
    assert 0.03 < truth < 0.08
    for _ in range(tables):
        found = world.arms(random)
        estimate = of(found[1].astype(float) - found[0])
        covered += abs(estimate.mean - truth) <= estimate.half_width(0.95)
    assert 0.93 <= covered / tables <= 0.97


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_splits_of_their_own_that_overlap_are_covered_too(share: float) -> None:
    world, random, tables = World(5, 600, 2.0, 0.0), np.random.default_rng(42), 800
    covered = 0
    for _ in range(tables):
        found = world.arms(random)
        splits = [random.choice(600, round(share * 600), replace=False) for _ in range(5)]
        differences = [found[1, seed, split].astype(float) - found[0, seed, split] for seed, split in enumerate(splits)]
        estimate = crossed_estimate(differences, splits)
        covered += abs(estimate.mean) <= estimate.half_width(0.95)
    assert 0.93 <= covered / tables <= 0.97


def test_arms_that_are_equally_good_in_the_population_lose_their_bold_in_at_most_5_percent_of_tables() -> None:
    world, random, tables, arms = World(3, 287, 2.0, 0.0), np.random.default_rng(43), 400, 4
    wrong = over_seeds = 0
    for _ in range(tables):
        found = world.arms(random, arms)
        values = {str(arm): dict(enumerate(found[arm].mean(axis=1))) for arm in range(arms)}
        images = {str(arm): {seed: scored(row) for seed, row in enumerate(found[arm])} for arm in range(arms)}
        wrong += min(p_of_being_best(values, images=images).values()) <= 0.05
        over_seeds += min(p_of_being_best(values).values()) <= 0.05
    assert wrong / tables <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / tables)
    assert wrong < over_seeds


def test_images_make_the_detectable_effect_larger_and_power_is_that_of_a_simulation() -> None:
    images = ImageVariance(0.3**2, (0.3**2 * 0.1) ** 2)
    effect = minimum_detectable_effect(0.4, 5, 3, images)
    assert effect > minimum_detectable_effect(0.4, 5, 3)
    assert detection_power(effect, 0.4, 5, 3, images) == pytest.approx(0.8, abs=1e-6)
    random, tables, found = np.random.default_rng(6), 4000, 0
    for _ in range(tables):
        seeds = effect + random.normal(0, 0.3) + random.normal(0, 0.4, 5)
        of_images = images.of_images + random.normal(0, math.sqrt(images.spread_of_images))
        estimate = CrossedEstimate(5, 500, seeds.mean(), seeds.var(ddof=1) / 5, of_images, images.spread_of_images)
        found += estimate.p(no_spread=1.0) < 0.05 / 3
    assert found / tables == pytest.approx(0.8, abs=0.02)
