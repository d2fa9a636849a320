"""The statistics of a table: hand-computed cases, oracles from scipy, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jepa_lab.reports.detection import detectable_effect, detection_power, minimum_detectable_effect
from jepa_lab.reports.multiplicity import holm, p_of_being_best
from jepa_lab.reports.statistics import (
    equivalence_margin,
    mean_interval,
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


def test_the_equivalence_margin_is_where_two_one_sided_t_tests_just_reject_at_the_level_of_the_interval() -> None:
    differences = [0.4, -0.3, 0.9, 0.2, 0.5]
    margin = equivalence_margin(mean_interval(differences))

    def p(margin: float) -> float:
        below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
        above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
        return max(float(below), float(above))

    assert p(margin) == pytest.approx(0.025, abs=1e-9)
    assert p(margin * 1.01) < 0.025 < p(margin * 0.99)
    assert equivalence_margin(mean_interval([-each for each in differences])) == pytest.approx(margin)
    assert math.isnan(equivalence_margin(mean_interval([0.5])))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("truth", [0.0, 0.3, 2.0])
def test_the_difference_that_is_ruled_out_is_the_true_one_in_at_most_2_5_percent_of_tables(
    seeds: int, truth: float
) -> None:
    random, tables, wrong = np.random.default_rng(30 + seeds), 2000, 0
    for differences in random.normal(truth, 0.4, (tables, seeds)):
        wrong += equivalence_margin(mean_interval(differences)) < truth
    assert wrong / tables <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / tables)


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


def test_a_planned_comparison_without_a_p_still_counts() -> None:
    found = holm({"a": 0.03, "failed": math.nan})
    assert found["a"] == pytest.approx(0.06)
    assert math.isnan(found["failed"])
    assert holm({"a": 0.01, "failed": math.nan, "b": 0.02}) == pytest.approx(
        {"a": 0.03, "failed": math.nan, "b": 0.04}, nan_ok=True
    )


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


@pytest.mark.parametrize(("effect", "seeds", "low", "high"), [(1.05, 5, 0.63, 3.02), (2.9, 3, 1.5, 18.2)])
def test_the_detectable_effect_is_a_range_because_a_few_seeds_hardly_know_their_spread(
    effect: float, seeds: int, low: float, high: float
) -> None:
    sd = effect / minimum_detectable_effect(1.0, seeds, 5)
    found = detectable_effect(sd, seeds, 5)
    assert found.effect == pytest.approx(effect, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.01)
    assert all(math.isnan(each) for each in vars(detectable_effect(0.4, 1, 5)).values())


def test_the_range_of_the_detectable_effect_covers_the_true_one_in_95_percent_of_tables() -> None:
    random, seeds, tables = np.random.default_rng(3), 5, 4000
    truth = minimum_detectable_effect(0.4, seeds, 3)
    of_one = detectable_effect(1.0, seeds, 3)
    observed = random.normal(0, 0.4, (tables, seeds)).std(axis=1, ddof=1)
    covered = (observed * of_one.low <= truth) & (truth <= observed * of_one.high)
    assert 0.94 <= covered.mean() <= 0.96


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


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    ("means", "spreads"),
    [
        ((0.0,) * 5, (1.0,) * 5),
        ((0.0,) * 5, (0.2, 1.0, 1.0, 3.0, 0.5)),
        ((0.0, 0.0), (1.0, 2.0)),
        ((0.0, 0.0, 0.0, -4.0, -9.0), (1.0,) * 5),
    ],
    ids=[
        "five identical arms",
        "five equally good arms that spread differently",
        "two equally good arms",
        "three of five",
    ],
)
def test_arms_that_are_truly_the_best_lose_their_bold_in_at_most_5_percent_of_tables(
    seeds: int, means: tuple[float, ...], spreads: tuple[float, ...]
) -> None:
    random, tables = np.random.default_rng(20 + seeds), 2000
    noise = random.normal(0, 1, (tables, len(means), seeds)) * np.array(spreads)[:, None]
    of_seed = random.normal(0, 2, (tables, 1, seeds))
    best = [arm for arm, mean in enumerate(means) if mean == 0]
    wrong = 0
    for table in np.array(means)[:, None] + noise + of_seed:
        found = p_of_being_best({str(arm): dict(enumerate(row)) for arm, row in enumerate(table)})
        wrong += min(found[str(arm)] for arm in best) <= 0.05
    assert wrong / tables <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / tables)  # of a rate at the limit


def test_arms_that_are_clearly_worse_lose_their_bold() -> None:
    random, tables, found = np.random.default_rng(5), 500, np.zeros(5)
    means = np.array([0.0, 0.0, -5.0, -8.0, -12.0])
    for _ in range(tables):
        table = means[:, None] + random.normal(0, 1, (5, 5)) + random.normal(0, 2, 5)
        p_of = p_of_being_best({str(arm): dict(enumerate(row)) for arm, row in enumerate(table)})
        found += [p <= 0.05 for p in p_of.values()]
    assert (found / tables)[3:].min() > 0.9


def test_the_p_of_being_best_is_that_of_paired_t_tests_corrected_for_all_pairs() -> None:
    values = {"a": [1.0, 2.2, 3.1, 4.3], "b": [2.1, 3.0, 4.4, 5.1], "c": [4.0, 5.2, 6.3, 7.0]}
    found = p_of_being_best({arm: dict(enumerate(each)) for arm, each in values.items()})

    def one_sided(worse: str, better: str) -> float:
        return float(stats.ttest_rel(values[better], values[worse], alternative="greater").pvalue)

    of_a, of_b = min(one_sided("a", "b"), one_sided("a", "c")), one_sided("b", "c")
    assert of_a < of_b
    assert found == pytest.approx({"a": 3 * 2 * of_a, "b": max(3 * 2 * of_a, 2 * 2 * of_b), "c": 1.0})
    lowest = p_of_being_best(
        {arm: {seed: -each for seed, each in enumerate(row)} for arm, row in values.items()}, False
    )
    assert lowest == pytest.approx(found)


def test_of_two_arms_the_worse_loses_its_bold_exactly_where_the_two_sided_paired_test_finds_it() -> None:
    values = {"base": {0: 1.0, 1: 2.0, 2: 3.5}, "arm": {0: 1.9, 1: 3.2, 2: 4.4}}
    assert p_of_being_best(values)["base"] == pytest.approx(paired_comparison(values["arm"], values["base"]).p)


def test_an_arm_that_has_no_p_against_the_best_is_not_told_apart_and_stays_bold() -> None:
    # The second is lower by the same with every seed; with a hair of spread it is told apart.
    alike = trials_of({"base": [1.0, 2.0, 3.0], "arm": [1.5, 2.5, 3.5]})
    assert [line.is_best_or_tied for line in summarise_arms(alike, ["base", "arm"], "base", "accuracy")] == [True, True]
    spread = trials_of({"base": [1.0, 2.0, 3.0], "arm": [1.5, 2.51, 3.5]})
    assert [line.is_best_or_tied for line in summarise_arms(spread, ["base", "arm"], "base", "accuracy")] == [
        False,
        True,
    ]
    # No seed in common: nothing to pair.
    apart = pd.DataFrame(
        [("base", seed, 1.0 + seed / 10) for seed in (0, 1, 2)]
        + [("arm", seed, 9.0 + seed / 10) for seed in (3, 4, 5)],
        columns=["arm", "seed", "accuracy"],
    )
    assert [line.is_best_or_tied for line in summarise_arms(apart, ["base", "arm"], "base", "accuracy")] == [True, True]


def test_an_arm_that_failed_makes_no_other_arm_significant_or_lose_its_bold() -> None:
    values = {"base": [1.0, 2.0, 3.0, 4.0], "arm": [1.9, 3.2, 3.4, 5.4]}
    whole = summarise_arms(trials_of(values), ["base", "arm"], "base", "accuracy")
    planned = summarise_arms(trials_of(values), ["base", "arm", "failed", "lost"], "base", "accuracy")
    assert whole[1].holm_p < 0.05 < planned[1].holm_p
    assert planned[1].holm_p == pytest.approx(3 * whole[1].holm_p)
    assert [line.is_best_or_tied for line in whole] == [False, True]
    assert [line.is_best_or_tied for line in planned] == [True, True, False, False]


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
        trials_of({"base": [1.0, 1.1, 0.9], "high": [5.0, 5.2, 4.9]}), ["base", "high"], "base", "accuracy", False
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
