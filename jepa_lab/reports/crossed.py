"""A difference of accuracies over seeds AND images: what other seeds on other images of the same kind would show.

An interval over seeds says what other seeds would give on these very images. Which images an arm gets right is luck of
the split as well: all seeds share it, so that their spread does not show it. Crossed random effects tell both apart.
With d[s, i] = correct by the arm - correct by the baseline, of seed s and image i,

    variance of the mean = (spread between seeds) / S + c,

where c is the covariance of the differences of two seeds on the images that they share. Where all seeds share all
images this is the analysis of variance's (MS_seeds + MS_images - MS_rest) / (S n); where seeds have splits of their
own, c counts the images that two splits happen to share. Satterthwaite's degrees of freedom; and the interval is
never narrower than Student's t over the seeds alone, because with few seeds the estimate may be too small by luck.

Chosen among five by simulated coverage: `python -m benchmarks.coverage`, benchmarks/results/coverage.md.

Source: Satterthwaite 1946, An approximate distribution of estimates of variance components; Searle, Casella and
McCulloch 1992, Variance components, ch. 4 (two crossed random factors).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class CrossedEstimate:
    """A mean difference and how far it may be from that of all seeds and images.

    Attributes:
        num_seeds: paired seeds, at least two.
        num_images: different images, over all seeds.
        mean: of the seeds' mean differences.
        of_seeds: the seeds' part of the variance of the mean, their variance / S; zero without any spread.
        of_images: the part that seeds share, c above; may come out negative where it is small.
        spread_of_images: the variance of `of_images` as an estimate.
    """

    num_seeds: int
    num_images: int
    mean: float
    of_seeds: float
    of_images: float
    spread_of_images: float

    @property
    def variance(self) -> float:
        """Of the mean over seeds and images; not positive where nothing can be estimated."""
        return self.of_seeds + self.of_images

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom of `variance`, at least one."""
        uncertain = 2 * self.of_seeds**2 / (self.num_seeds - 1) + self.spread_of_images
        return max(1.0, 2 * self.variance**2 / uncertain) if uncertain > 0 else math.inf

    def half_width(self, confidence: float) -> float:
        """Of the interval around the mean."""
        of_seeds = _quantile(confidence, self.num_seeds - 1) * math.sqrt(self.of_seeds)
        if self.variance <= 0:
            return of_seeds
        return max(of_seeds, _quantile(confidence, self.degrees) * math.sqrt(self.variance))

    def p(self, no_spread: float) -> float:
        """Two-sided p that the mean is zero, which the intervals agree with.

        Args:
            no_spread: the p where the seeds have no spread, see `statistics.paired_t_p`.
        """
        if self.of_seeds == 0:
            return no_spread
        found = [_tail(self.mean, self.of_seeds, self.num_seeds - 1)]
        if self.variance > 0:
            found.append(_tail(self.mean, self.variance, self.degrees))
        return max(found)


def crossed_estimate(differences: Sequence[np.ndarray], images: Sequence[np.ndarray]) -> CrossedEstimate:
    """Estimate the variance of the mean difference over seeds and images.

    Args:
        differences: of each seed (at least two) the differences of its images, [n] each (at least two).
        images: of each seed the numbers of these images, [n] each, none twice; the same number is the same image.
    """
    num_seeds = len(differences)
    means = np.array([float(each.mean()) for each in differences])
    numbers, places = np.unique(np.concatenate(images), return_inverse=True)
    shared = _shared(differences, means, places, len(numbers))
    spread = float(np.var(shared, ddof=1)) * len(numbers)
    has_spread = means.std(ddof=1) > 1e-12 * max(1.0, abs(means.mean()))
    of_seeds = float(means.var(ddof=1)) / num_seeds if has_spread else 0.0
    return CrossedEstimate(num_seeds, len(numbers), float(means.mean()), of_seeds, float(shared.sum()), spread)


def _shared(differences: Sequence[np.ndarray], means: np.ndarray, places: np.ndarray, num_images: int) -> np.ndarray:
    """The part of each image in the covariance between seeds, [U]."""
    residuals = np.concatenate(
        [(each - mean) / math.sqrt(len(each) * (len(each) - 1)) for each, mean in zip(differences, means, strict=True)]
    )
    sums = np.bincount(places, weights=residuals, minlength=num_images)
    squares = np.bincount(places, weights=residuals**2, minlength=num_images)
    num_seeds = len(differences)
    return (sums**2 - squares) / (num_seeds * (num_seeds - 1))


def _quantile(confidence: float, degrees: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, degrees))


def _tail(mean: float, variance: float, degrees: float) -> float:
    return float(2 * stats.t.sf(abs(mean) / math.sqrt(variance), degrees))
