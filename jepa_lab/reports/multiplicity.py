"""Many comparisons at once: Holm's correction against one baseline, and the comparison with the best.

Both count every planned arm, whatever became of it: an arm that crashed must not make the others significant.

Source: Holm 1979, A simple sequentially rejective multiple test procedure; Hsu 1984, Constrained simultaneous
confidence intervals for multiple comparisons with the best; Marcus, Peritz and Gabriel 1976, On closed testing
procedures with special reference to ordered analysis of variance; Hansen, Lunde and Nason 2011, The model confidence
set (the guarantee for arms that are equally good).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from jepa_lab.reports.image_scores import BySeed, crossed_comparison


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p of each comparison.

    Args:
        p_values: of every planned comparison. NaN, where there is no p, stays NaN and counts as a comparison that
            finds nothing.
    """
    known = sorted((name for name in p_values if not math.isnan(p_values[name])), key=lambda name: p_values[name])
    adjusted, running = {}, 0.0
    for index, name in enumerate(known):
        running = max(running, min(1.0, (len(p_values) - index) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted.get(name, math.nan) for name in p_values}


def p_of_being_best(
    values: Mapping[str, Mapping[int, float]],
    higher_is_better: bool = True,
    images: Mapping[str, BySeed] | None = None,
) -> dict[str, float]:
    """Adjusted p of each arm's hypothesis "no other arm is better than this one".

    Of k arms, each meets the k - 1 others in one-sided t tests paired by seed (Bonferroni), and Holm steps over the k
    arms. By closed testing, the probability that any arm which is truly the best, alone or with others, gets a p of
    at most alpha is at most alpha, for any variances and correlations of normal errors. Holm over paired tests against
    the best of the sample does not hold that: the best was chosen by the same numbers.

    Differs from Hsu 1984: each pair has its own variance, since arms may spread differently, and arms that are equally
    good are all protected, not only one of them.

    Args:
        values: of every planned arm, by seed; may be empty.
        images: the scored images of the arms' runs: a pair whose images are known meets in the stricter of the test
            over seeds and that over seeds and images.
    Returns:
        Of each arm; 1 where no test says that another is better, also where there is nothing to test with.
    """
    seeds = sorted({seed for found in values.values() for seed in found})
    grid = np.array([[found.get(seed, math.nan) for seed in seeds] for found in values.values()], dtype=float)
    if len(grid) < 2 or not seeds:
        return dict.fromkeys(values, 1.0)
    grid = grid if higher_is_better else -grid
    p = _p_that_the_other_is_better(grid)
    smallest = _smallest_p(p, _mean_gains(grid), list(values.items()), images or {})
    corrected = np.minimum(1.0, (len(grid) - 1) * smallest)
    return holm(dict(zip(values, map(float, corrected), strict=True)))


def _p_that_the_other_is_better(grid: np.ndarray) -> np.ndarray:
    """One-sided p of the paired t test that arm j is better than arm i, [A, A]; 1 where it cannot be tested.

    Differences without any spread give no test, as in `statistics.paired_t_p`.

    Args:
        grid: [A, S] value by arm and seed, higher is better; NaN where there is none.
    """
    differences = grid[None, :, :] - grid[:, None, :]  # [A, A, S]
    known = np.isfinite(differences)
    pairs = known.sum(axis=2)
    mean = np.where(known, differences, 0.0).sum(axis=2) / np.maximum(pairs, 1)
    squares = np.where(known, (differences - mean[:, :, None]) ** 2, 0.0).sum(axis=2)
    sd = np.sqrt(squares / np.maximum(pairs - 1, 1))
    is_tested = (pairs >= 2) & (sd > 1e-12 * np.maximum(1.0, np.abs(mean)))
    t = mean / np.where(is_tested, sd, 1.0) * np.sqrt(pairs)
    return np.where(is_tested, stats.t.sf(t, np.maximum(pairs - 1, 1)), 1.0)


def _mean_gains(grid: np.ndarray) -> np.ndarray:
    """By how much arm j is better than arm i, from the means over each one's seeds, [A, A]; only an order matters."""
    known = np.isfinite(grid)
    means = np.where(known, grid, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.asarray(means[None, :] - means[:, None])


def _smallest_p(
    p: np.ndarray, gains: np.ndarray, arms: Sequence[tuple[str, Mapping[int, float]]], images: Mapping[str, BySeed]
) -> np.ndarray:
    """Of each arm the smallest p that another one is better: the stricter of that over seeds and that over images, [A].

    The images make a p larger or leave it, so that most pairs need no look at them: only those whose p over seeds
    is below the smallest one found. Beginning with the arms that are better by most, a few are left of 200.

    Args:
        p: [A, A], over seeds alone. gains: [A, A], see `_mean_gains`.
        arms: name and values by seed of each arm.
    """
    found = np.ones(len(p))
    for own in range(len(p)):
        for other in np.argsort(-gains[own], kind="stable"):
            if p[own, other] < found[own]:
                found[own] = min(found[own], max(p[own, other], _p_over_images(arms[own], arms[other], images)))
    return found


def _p_over_images(
    own: tuple[str, Mapping[int, float]], other: tuple[str, Mapping[int, float]], images: Mapping[str, BySeed]
) -> float:
    """One-sided p over seeds and images that the other arm is better; 0 where it is not known."""
    (name, values), (its_name, its_values) = own, other
    crossed = crossed_comparison((values, its_values), (images.get(name, {}), images.get(its_name, {})))
    return 0.0 if crossed is None else crossed.p(no_spread=1.0) / 2
