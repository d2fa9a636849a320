"""The statistics of a table: hand-computed cases, oracles from scipy, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jepa_lab.reports.statistics import (
    detection_power,
    holm,
    mean_interval,
    minimum_detectable_effect,
    paired_comparison,
    paired_t_p,
    rank_correlations,
    sign_flip_p,
    summarise_arms,
)


def trials_of(values: dict[str, list[float]], metric: str = "accuracy") -> pd.DataFrame:
    """One line a trial, seeds 0, 1, ..."""
    rows = [(arm, seed, value) for arm, found in values.items() for seed, value in enumerate(found)]
    return pd.DataFrame(rows, columns=["arm", "seed", metric])


def test_the_interval_of_three_numbers_is_that_of_a_t_table() -> None:
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.n, found.mean) == (3, 2.0)
    quantile = 0.95 / math.sqrt(2 * 0.975 * 0.025)  # of t with 2 degrees of freedom, in closed form
    half = quantile / math.sqrt(3)  # the standard deviation is 1
    assert found.low == pytest.approx(2 - half, abs=1e-12)
    assert found.high == pytest.approx(2 + half, abs=1e-12)


def test_one_number_has_a_mean_and_no_interval() -> None:
    found = mean_interval([0.5])
    assert found.mean == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(mean_interval([]).mean)


def test_equal_numbers_have_a_mean_and_no_interval() -> None:
    found = mean_interval([0.1 + 0.2, 0.3, 0.3])
    assert (found.n, found.mean) == (3, pytest.approx(0.3))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_comparison_is_paired_by_seed_and_uses_the_seeds_that_both_have() -> None:
    arm, baseline = {0: 1.0, 1: 2.0, 2: 4.0, 7: 100.0}, {2: 3.0, 1: 1.5, 0: 0.0, 5: -50.0}
    found = paired_comparison(arm, baseline)
    assert found.difference.n == 3
    assert found.difference.mean == pytest.approx((1.0 + 0.5 + 1.0) / 3)
    expected = stats.ttest_rel([1.0, 2.0, 4.0], [0.0, 1.5, 3.0])
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_differences_without_spread_give_no_interval_and_no_p_unless_they_are_zero() -> None:
    assert paired_t_p([0.0, 0.0, 0.0]) == 1.0
    assert paired_t_p([0.1 + 0.2 - 0.3, 0.0]) == 1.0
    assert math.isnan(paired_t_p([0.5, 0.5]))
    same, zero = (paired_comparison({0: 1 + more, 1: 2 + more}, {0: 1.0, 1: 2.0}) for more in (0.5, 0.0))
    assert (same.difference.mean, zero.difference.mean) == (0.5, 0.0)
    assert math.isnan(same.p)
    assert zero.p == 1.0
    assert math.isnan(same.difference.low)
    assert math.isnan(zero.difference.low)
    assert math.isnan(paired_t_p([0.5]))


def test_sign_flips_are_enumerated() -> None:
    assert sign_flip_p([1.0, 1.0, 1.0]) == 0.25
    assert sign_flip_p([1.0, 2.0, -4.0]) == 1.0  # |-1| is the smallest of the eight sums
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == 0.0625
    assert paired_comparison({0: 1.0, 1: 1.0, 2: 1.0}, {0: 0.0, 1: 0.0, 2: 0.0}).sign_flip_floor == 0.25
    with pytest.raises(ValueError, match="at most 40"):
        sign_flip_p([1.0] * 41)


def test_sign_flips_of_many_seeds_are_counted_exactly() -> None:
    assert sign_flip_p([1.0] * 20) == 2.0**-19
    # The sum of 24 signs is at least 16 from zero where at most 4 of them differ from the others.
    extreme = 2 * sum(math.comb(24, few) for few in range(5))
    assert sign_flip_p([1.0] * 20 + [-1.0] * 4) == pytest.approx(extreme / 2**24, rel=1e-12)
    many = paired_comparison(dict.fromkeys(range(50), 1.0), dict.fromkeys(range(50), 0.0))
    assert math.isnan(many.sign_flip_p)
    assert many.sign_flip_floor == 2.0**-49


def test_sign_flips_agree_with_scipy_s_permutation_test() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, 8)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=1e-12)


def test_holm_steps_down_and_never_decreases() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == pytest.approx({"a": 1.0, "b": 1.0})
    found = holm({"a": 0.01, "failed": math.nan, "b": 0.02})
    assert found["a"] == pytest.approx(0.02)
    assert math.isnan(found["failed"])


@pytest.mark.parametrize(
    ("seeds", "effect", "power"), [(5, 1.0, 0.76), (5, 0.5, 0.20), (3, 1.0, 0.18)]
)  # simulated independently: paired standard deviation 0.4, five arms
def test_power_is_that_of_an_independent_simulation(seeds: int, effect: float, power: float) -> None:
    assert detection_power(effect, 0.4, seeds, 5) == pytest.approx(power, abs=0.03)


def test_the_minimum_detectable_effect_is_found_with_the_stated_power() -> None:
    effect = minimum_detectable_effect(0.4, 5, 5)
    assert detection_power(effect, 0.4, 5, 5) == pytest.approx(0.8, abs=1e-6)
    assert minimum_detectable_effect(0.8, 5, 5) == pytest.approx(2 * effect, rel=1e-6)
    assert math.isnan(minimum_detectable_effect(0.4, 1, 5))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("arms", [1, 5, 30])
def test_a_minimum_detectable_effect_exists_for_every_size_of_table(seeds: int, arms: int) -> None:
    # scipy's noncentral t gives NaN for many of these, which once ended the report.
    effect = minimum_detectable_effect(0.4, seeds, arms)
    assert detection_power(effect, 0.4, seeds, arms) == pytest.approx(0.8, abs=1e-6)


def test_power_agrees_with_the_noncentral_t_where_scipy_can_compute_it() -> None:
    shift, critical = 0.5 / 0.4 * math.sqrt(5), stats.t.ppf(1 - 0.05 / 3 / 2, 4)
    expected = stats.nct.sf(critical, 4, shift) + stats.nct.cdf(-critical, 4, shift)
    assert detection_power(0.5, 0.4, 5, 3) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_95_percent_interval_of_the_difference_covers_the_truth_in_simulated_tables(seeds: int) -> None:
    random, covered, tables = np.random.default_rng(seeds), 0, 2000
    for _ in range(tables):
        of_seed = random.normal(0, 2.0, seeds)  # what a seed does to both arms
        baseline = dict(enumerate(70 + of_seed + random.normal(0, 0.4, seeds)))
        arm = dict(enumerate(70.7 + of_seed + random.normal(0, 0.4, seeds)))
        interval = paired_comparison(arm, baseline).difference
        covered += interval.low <= 0.7 <= interval.high
    assert 0.93 <= covered / tables <= 0.97


@pytest.mark.parametrize("seeds", [3, 5])
def test_holm_keeps_the_family_wise_error_where_no_arm_has_an_effect(seeds: int) -> None:
    random, wrong, tables = np.random.default_rng(10 + seeds), 0, 2000
    for _ in range(tables):
        noise = random.normal(0, 1, (6, seeds)) + random.normal(0, 2, seeds)
        values = [dict(enumerate(row)) for row in noise]
        adjusted = holm({str(i): paired_comparison(values[i], values[0]).p for i in range(1, 6)})
        wrong += min(adjusted.values()) < 0.05
    assert wrong / tables <= 0.06


def test_the_table_holds_baseline_differences_and_corrected_p() -> None:
    trials = trials_of({"base": [1.0, 2.0, 3.0], "up": [2.1, 3.0, 3.9], "same": [1.0, 2.2, 2.9]})
    base, up, same = summarise_arms(trials, ["base", "up", "same"], "base", "accuracy")
    assert base.comparison is None
    assert math.isnan(base.holm_p)
    assert up.comparison is not None
    assert up.comparison.difference.mean == pytest.approx(1.0)
    assert up.holm_p == pytest.approx(2 * up.comparison.p)
    assert same.comparison is not None
    assert same.holm_p == pytest.approx(same.comparison.p)
    assert [line.is_best_or_tied for line in (base, up, same)] == [False, True, False]


def test_arms_that_cannot_be_told_apart_from_the_best_are_marked_with_it() -> None:
    trials = trials_of({"base": [1.0, 2.0, 3.0], "noisy": [2.5, 1.0, 4.0]})
    assert [line.is_best_or_tied for line in summarise_arms(trials, ["base", "noisy"], "base", "accuracy")] == [
        True
    ] * 2
    lower = summarise_arms(
        trials_of({"base": [1.0, 1.1, 0.9], "high": [5.0, 5.1, 4.9]}), ["base", "high"], "base", "accuracy", False
    )
    assert [line.is_best_or_tied for line in lower] == [True, False]


def test_trials_that_failed_are_left_out_of_means_but_not_of_pairs_of_others() -> None:
    trials = trials_of({"base": [1.0, 2.0, 3.0], "arm": [1.5, math.nan, 3.5]})
    base, arm = summarise_arms(trials, ["base", "arm"], "base", "accuracy")
    assert (base.mean.n, arm.mean.n) == (3, 2)
    assert arm.comparison is not None
    assert arm.comparison.difference.n == 2


def test_one_seed_gives_means_and_no_claims() -> None:
    base, arm = summarise_arms(trials_of({"base": [1.0], "arm": [2.0]}), ["base", "arm"], "base", "accuracy")
    assert arm.comparison is not None
    assert math.isnan(arm.comparison.p)
    assert math.isnan(arm.holm_p)
    assert [base.is_best_or_tied, arm.is_best_or_tied] == [False, False]


def test_rank_correlation_of_a_monitor_with_the_probe() -> None:
    trials = pd.DataFrame({"accuracy": [1.0, 2.0, 3.0, 4.0], "rankme": [10.0, 20.0, 25.0, 90.0], "flat": [1.0] * 4})
    found = rank_correlations(trials, ["rankme", "flat", "absent"], "accuracy").set_index("monitor")
    assert found.loc["rankme", "rho"] == pytest.approx(1.0)
    assert math.isnan(found.loc["flat", "rho"])
    assert found.loc["absent", "n"] == 0


def test_an_arm_with_one_lucky_seed_is_not_the_best() -> None:
    trials = trials_of({"base": [1.0, 2.0, 3.0], "lucky": [9.0], "good": [2.0, 3.1, 3.9]})
    lines = summarise_arms(trials, ["base", "lucky", "good"], "base", "accuracy")
    assert [line.is_best_or_tied for line in lines] == [False, False, True]


def test_arms_with_other_seeds_are_ranked_by_their_difference_from_the_baseline() -> None:
    # "lost" has no result for the two seeds that are bad for every arm: its mean is the highest all the same.
    trials = pd.DataFrame(
        [("base", seed, value) for seed, value in enumerate([1.0, 1.1, 5.0, 5.1, 5.2])]
        + [("lost", seed, value) for seed, value in zip((2, 3, 4), [5.01, 5.1, 5.22], strict=True)]
        + [("good", seed, value) for seed, value in enumerate([2.0, 2.11, 6.0, 6.12, 6.2])],
        columns=["arm", "seed", "accuracy"],
    )
    lines = summarise_arms(trials, ["base", "lost", "good"], "base", "accuracy")
    assert lines[1].mean.mean > lines[2].mean.mean
    assert [line.is_best_or_tied for line in lines] == [False, False, True]
