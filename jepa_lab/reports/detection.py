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


def detectable_effect(sd: float, n: int, comparisons: int, power: float = POWER) -> DetectableEffect:
    """The minimum detectable effect as a range, from the chi-square interval of the standard deviation.

    Args:
        sd: observed in `n` paired differences. comparisons: planned.
    """
    effect = minimum_detectable_effect(sd, n, comparisons, power)
    low, high = sd_factors(n) if n >= 2 else (math.nan, math.nan)
    return DetectableEffect(effect, effect * low, effect * high)  # it is proportional to the standard deviation


def sd_factors(n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Both ends of a standard deviation's interval, as multiples of the one observed in n >= 2 normal numbers."""
    degrees = n - 1
    upper, lower = stats.chi2.ppf([(1 + confidence) / 2, (1 - confidence) / 2], degrees)
    return math.sqrt(degrees / upper), math.sqrt(degrees / lower)


def minimum_detectable_effect(sd: float, n: int, comparisons: int, power: float = POWER) -> float:
    """The smallest true difference that is found with this power; NaN where n < 2 or the spread is not known.

    Args:
        sd: the true one of the paired differences.
    """
    if n < 2 or math.isnan(sd) or comparisons < 1:
        return math.nan
    if sd == 0:
        return 0.0
    high = sd
    while detection_power(high, sd, n, comparisons) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: detection_power(effect, sd, n, comparisons) - power, 0.0, high))


def detection_power(effect: float, sd: float, n: int, comparisons: int) -> float:
    """Power to find a mean difference at Holm's first and strictest step, alpha / comparisons.

    Args:
        effect: true mean difference. sd: of the paired differences. n: pairs.
    """
    degrees, shift = n - 1, effect / sd * math.sqrt(n)
    critical = stats.t.ppf(1 - ALPHA / comparisons / 2, degrees)
    # The noncentral t as a mean over the spread that the seeds happen to show; scipy.stats.nct gives NaN in its tail.
    shares, weights = _quadrature()
    spread = np.sqrt(stats.chi2.ppf((shares + 1) / 2, degrees) / degrees)
    found = stats.norm.sf(critical * spread - shift) + stats.norm.cdf(-critical * spread - shift)
    return float(np.sum(weights * found) / 2)


@functools.cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's nodes in (-1, 1) and their weights."""
    return np.polynomial.legendre.leggauss(256)
