"""The statistics of an ablation table: pure functions over a frame of trials.

Paired by seed against one declared baseline: t intervals, paired t tests, Holm over the arms. With a handful of seeds
a percentile bootstrap covers 75 to 85% instead of 95%, so there is none here. Intervals are per comparison. Where it is
known which images each run got right, p and all that is said about differences is over seeds and images (`crossed`).

Source: Student's paired t; Fisher's sign flips; Holm, and the comparison with the best, in `multiplicity`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from jepa_lab.reports.crossed import CrossedEstimate
from jepa_lab.reports.image_scores import BySeed, crossed_comparison
from jepa_lab.reports.multiplicity import holm, p_of_being_best

CONFIDENCE = 0.95
ALPHA = 0.05
MAX_EXACT_FLIPS = 40  # two halves of 2^20 sums; a table has a handful of seeds


@dataclass(frozen=True)
class Interval:
    """A mean and its t interval.

    Attributes:
        n: numbers it is the mean of.
        mean: NaN for n = 0. low, high: NaN without an interval: for n < 2, and for numbers that are all the same.
    """

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline, paired by seed.

    Attributes:
        difference: arm - baseline over the seeds that both have; its interval is over seeds, on these images.
        sd: standard deviation of the paired differences; NaN for fewer than two pairs.
        seeds_p: of the two-sided paired t test; NaN for fewer than two pairs, and where all differences are the same.
        sign_flip_p: of the exact sign-flip test; NaN without pairs, or for more than can be enumerated.
        sign_flip_floor: the smallest p that this number of pairs can give.
        crossed: over seeds and images; None where it is not known which images were right.
    """

    difference: Interval
    sd: float
    seeds_p: float
    sign_flip_p: float
    sign_flip_floor: float
    crossed: CrossedEstimate | None = None

    @property
    def over_images(self) -> Interval:
        """The difference over seeds and images; without an interval where that is not known."""
        n, mean, low = self.difference.n, self.difference.mean, self.difference.low
        if self.crossed is None or math.isnan(low):
            return Interval(n, mean, math.nan, math.nan)
        half = self.crossed.half_width(CONFIDENCE)
        return Interval(n, mean, mean - half, mean + half)

    @property
    def strict(self) -> Interval:
        """The wider of both intervals: over seeds and images where that is known, else over seeds."""
        return self.difference if self.crossed is None else self.over_images

    @property
    def p(self) -> float:
        """The stricter of both p, which the wider interval agrees with."""
        return self.seeds_p if self.crossed is None else self.crossed.p(no_spread=self.seeds_p)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean with a two-sided t interval.

    Numbers that are all the same have no interval: one without width would call a mean certain because a coarse
    accuracy came out alike a few times.

    Args:
        values: finite numbers, one a seed.
    """
    n = len(values)
    if n == 0:
        return Interval(0, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if not has_spread(values):
        return Interval(n, mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(n, mean, mean - half, mean + half)


def paired_comparison(
    arm: Mapping[int, float], baseline: Mapping[int, float], images: tuple[BySeed, BySeed] = ({}, {})
) -> Comparison:
    """Compare an arm with the baseline over the seeds that both have.

    Args:
        arm, baseline: value by seed.
        images: of both, as far as they are known.
    """
    differences = [arm[seed] - baseline[seed] for seed in sorted(set(arm) & set(baseline))]
    n = len(differences)
    sd = float(np.std(differences, ddof=1)) if n >= 2 else math.nan
    floor = min(1.0, 2.0 ** (1 - n)) if n else math.nan
    flips = sign_flip_p(differences) if n <= MAX_EXACT_FLIPS else math.nan
    crossed = crossed_comparison((arm, baseline), images)
    return Comparison(mean_interval(differences), sd, paired_t_p(differences), flips, floor, crossed)


def equivalence_margin(interval: Interval) -> float:
    """The smallest margin within which a difference lies by two one-sided tests at the interval's level.

    The tests "below +margin" and "above -margin" both reject at 2.5% for every margin beyond the farther end of a 95%
    interval: what the interval leaves out is ruled out.

    Returns:
        NaN where there is no interval.
    Source: Schuirmann 1987, A comparison of the two one-sided tests procedure and the power approach.
    """
    return max(abs(interval.low), abs(interval.high))


def has_spread(values: Sequence[float]) -> bool:
    """Whether there are two numbers or more that differ by more than their rounding errors."""
    if len(values) < 2:
        return False
    return float(np.std(values, ddof=1)) > 1e-12 * max(1.0, abs(float(np.mean(values))))


def paired_t_p(differences: Sequence[float]) -> float:
    """Two-sided p of Student's t test that the mean difference is zero.

    Differences that are all the same have no spread to judge by: p is 1 where they are zero and NaN otherwise. (A p
    of 0 would call a difference certain because a coarse accuracy moved by the same few images twice.)
    """
    n = len(differences)
    if n < 2:
        return math.nan
    mean, sd = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if not has_spread(differences):
        return 1.0 if abs(mean) <= 1e-12 else math.nan
    return float(2 * stats.t.sf(abs(mean) / sd * math.sqrt(n), n - 1))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the exact sign-flip test: the share of sign patterns whose mean is at least as far from zero.

    Raises:
        ValueError: for more differences than can be enumerated.
    """
    n = len(differences)
    if n == 0:
        return math.nan
    if n > MAX_EXACT_FLIPS:
        raise ValueError(
            f"the exact sign-flip test enumerates 2^n patterns, n must be at most {MAX_EXACT_FLIPS}, got {n}"
        )
    values = np.asarray(differences, dtype=float)
    observed = abs(float(values.sum()))
    threshold = observed - 1e-12 * max(1.0, observed)
    # Every pattern is one of the first half with one of the second: counting pairs by bisection is exact, and takes
    # the square root of the memory of an enumeration.
    first, second = _signed_sums(values[: n // 2]), np.sort(_signed_sums(values[n // 2 :]))
    above = len(second) - np.searchsorted(second, threshold - first, side="left")
    below = np.searchsorted(second, -threshold - first, side="right")
    extreme = np.minimum(above + below, len(second))  # both, where the observed sum is zero
    return float(extreme.sum() / 2.0**n)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """The sums of all 2^n sign patterns of n values."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def values_by_seed(trials: pd.DataFrame, arm: str, metric: str) -> dict[int, float]:
    """The arm's values of a metric by seed; trials without one are left out, all of them where no trial has it.

    Args:
        trials: columns `arm`, `seed` and the metrics, one line a trial.
    """
    if metric not in trials:
        return {}
    chosen = trials.loc[trials["arm"] == arm, ["seed", metric]].dropna(subset=[metric])  # not all of its columns
    return {int(seed): float(value) for seed, value in zip(chosen["seed"], chosen[metric], strict=True)}


@dataclass(frozen=True)
class ArmSummary:
    """A line of the table.

    Attributes:
        mean: of the metric over the arm's seeds.
        comparison: with the baseline; None for the baseline itself.
        holm_p: p adjusted over all planned arms; NaN where there is none.
        is_best_or_tied: the best arm, or one that may be as good (`multiplicity.p_of_being_best`).
    """

    arm: str
    mean: Interval
    comparison: Comparison | None
    holm_p: float
    is_best_or_tied: bool


def summarise_arms(
    trials: pd.DataFrame,
    arms: Sequence[str],
    baseline: str,
    metric: str,
    higher_is_better: bool = True,
    unjudged: frozenset[str] = frozenset(),
    images: Mapping[str, BySeed] | None = None,
) -> list[ArmSummary]:
    """The lines of an ablation table, in the order of `arms`.

    Args:
        trials: columns `arm`, `seed` and `metric`, one line a trial that finished.
        arms: all, the baseline among them.
        unjudged: arms that get no p, are not bold and take no other arm's bold, though the family counts them. Where
            the baseline is one of them, nothing has a p.
        images: the scored images of each arm's runs, as far as they are known.
    """
    scored = {arm: (images or {}).get(arm, {}) for arm in arms}
    values = {arm: values_by_seed(trials, arm, metric) for arm in arms}
    judged = {arm: {} if arm in unjudged else found for arm, found in values.items()}
    comparisons = {
        arm: paired_comparison(values[arm], values[baseline], (scored[arm], scored[baseline]))
        for arm in arms
        if arm != baseline
    }
    without_p = set(arms) if baseline in unjudged else unjudged
    adjusted = holm({arm: math.nan if arm in without_p else each.p for arm, each in comparisons.items()})
    bold = _bold_arms(judged, baseline, higher_is_better, scored)
    return [
        ArmSummary(
            arm,
            mean_interval(list(values[arm].values())),
            comparisons.get(arm),
            adjusted.get(arm, math.nan),
            arm in bold,
        )
        for arm in arms
    ]


def _bold_arms(
    values: Mapping[str, Mapping[int, float]], baseline: str, higher_is_better: bool, images: Mapping[str, BySeed]
) -> set[str]:
    """The best arm, and every arm that may be as good as the best.

    Arms with fewer than two seeds are not judged: one lucky seed would be "the best" and nothing could be tied
    with it. Where seeds failed, arms are ranked by the difference from the baseline over the seeds that both have,
    since means over unequal seeds differ by the seeds as well; with all seeds that is the order of the means.
    """
    judged = {arm: found for arm, found in values.items() if len(found) >= 2}
    if not judged:
        return set()
    sign = 1 if higher_is_better else -1
    paired = {arm: set(found) & set(values[baseline]) for arm, found in judged.items()}
    complete = all(len(seeds) >= 2 for seeds in paired.values())

    def score(arm: str) -> float:
        found, of_baseline = judged[arm], values[baseline]
        differences = [found[seed] - of_baseline[seed] for seed in paired[arm]] if complete else list(found.values())
        return sign * float(np.mean(differences))

    best = max(judged, key=score)
    p_of = p_of_being_best(values, higher_is_better, images)
    return {best} | {arm for arm in judged if p_of[arm] > ALPHA}


def rank_correlations(trials: pd.DataFrame, monitors: Sequence[str], metric: str) -> pd.DataFrame:
    """Spearman's rank correlation of each label-free monitor with the probe over all trials.

    Returns:
        Columns `monitor`, `n`, `rho`, `p`; rho is NaN for fewer than three trials or a constant column.
    """
    rows = []
    for monitor in monitors:
        both = trials[[monitor, metric]].dropna() if monitor in trials else pd.DataFrame(columns=[monitor, metric])
        rho = p = math.nan
        if len(both) >= 3 and both[monitor].nunique() > 1 and both[metric].nunique() > 1:
            rho, p = stats.spearmanr(both[monitor], both[metric])
        rows.append((monitor, len(both), float(rho), float(p)))
    return pd.DataFrame(rows, columns=["monitor", "n", "rho", "p"])
