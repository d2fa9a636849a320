"""What a table could have found: the smallest true difference that it detects, and how well that is known."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from jepa_lab.reports.statistics import ALPHA, CONFIDENCE

POWER = 0.8


@dataclass(frozen=True)
class DetectableEffect:
    """The smallest true difference that is found with a given power.

    Attributes:
        effect: for the standard deviation that was observed; NaN where it is not known.
        low, high: for the ends of that standard deviation's 95% interval: a few seeds hardly know it.
    """

    effect: float
    low: float
    high: float


@dataclass(frozen=True)
class ImageVariance:
    """What the images add to the variance of a mean difference, see `crossed.CrossedEstimate`.

    Attributes:
        of_images: the part that all seeds share. spread_of_images: the variance of its estimate.
    """

    of_images: float
    spread_of_images: float


NO_IMAGES = ImageVariance(0.0, 0.0)
"""Of a test over seeds alone."""


def detectable_effect(
    sd: float, n: int, comparisons: int, images: ImageVariance = NO_IMAGES, power: float = POWER
) -> DetectableEffect:
    """The minimum detectable effect as a range, from the chi-square interval of the standard deviation.

    Args:
        sd: observed in `n` paired differences. comparisons: planned.
    """
    low, high = sd_factors(n) if n >= 2 else (math.nan, math.nan)
    effects = (minimum_detectable_effect(sd * factor, n, comparisons, images, power) for factor in (1.0, low, high))
    return DetectableEffect(*effects)


def sd_factors(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Both ends of a standard deviation's interval, as multiples of the one observed in n >= 2 normal numbers."""
    degrees = n - 1
    upper, lower = stats.chi2.ppf([(1 + confidence) / 2, (1 - confidence) / 2], degrees)
    return math.sqrt(degrees / upper), math.sqrt(degrees / lower)


def minimum_detectable_effect(
    sd: float, n: int, comparisons: int, images: ImageVariance = NO_IMAGES, power: float = POWER
) -> float:
    """The smallest true difference that is found with this power; NaN where n < 2 or the spread is not known.

    Args:
        sd: the true one of the paired differences.
    """
    if n < 2 or math.isnan(sd) or comparisons < 1:
        return math.nan
    if sd == 0:
        return 0.0
    high = sd
    while detection_power(high, sd, n, comparisons, images) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: detection_power(effect, sd, n, comparisons, images) - power, 0.0, high))


def detection_power(effect: float, sd: float, n: int, comparisons: int, images: ImageVariance = NO_IMAGES) -> float:
    """Power to find a mean difference at Holm's first and strictest step, alpha / comparisons.

    Args:
        effect: true mean difference. sd: of the paired differences. n: pairs.
        images: the test is over seeds and images, the stricter one.
    """
    degrees, level, true = n - 1, 1 - ALPHA / comparisons / 2, sd**2 / n
    # The noncentral t as a mean over the spread that the seeds happen to show; scipy.stats.nct gives NaN in its tail.
    shares, weights = _quadrature()
    of_seeds = true * stats.chi2.ppf((shares + 1) / 2, degrees) / degrees
    critical = stats.t.ppf(level, degrees) * np.sqrt(of_seeds)
    if images.of_images > 0:
        total = of_seeds + images.of_images
        own = np.maximum(1.0, 2 * total**2 / (2 * of_seeds**2 / degrees + images.spread_of_images))
        critical = np.maximum(critical, stats.t.ppf(level, own) * np.sqrt(total))
    scale = math.sqrt(true + max(0.0, images.of_images))
    found = stats.norm.sf((critical - effect) / scale) + stats.norm.cdf((-critical - effect) / scale)
    return float(np.sum(weights * found) / 2)


@functools.cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's nodes in (-1, 1) and their weights."""
    return np.polynomial.legendre.leggauss(256)
