"""How numbers are written: percent, points, intervals, p, parameters, times. Missing ones are a dash."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from jepa_lab.measures import is_share
from jepa_lab.reports.statistics import Interval

MISSING = "–"
MINUS = "−"


@dataclass(frozen=True)
class Scale:
    """How the numbers of one metric are written.

    Attributes:
        factor: 100 for accuracies, which are written in percent.
        decimals: the same in the whole table, so that columns can be compared by eye.
        unit, difference_unit: for headings; a difference of percentages is in percentage points.
    """

    factor: float
    decimals: int
    unit: str
    difference_unit: str

    def value(self, number: float) -> str:
        """Such as 94.77."""
        return MISSING if math.isnan(number) else _proper_minus(f"{self.factor * number:.{self.decimals}f}")

    def signed(self, number: float) -> str:
        """Such as +0.82; a zero has no sign."""
        if math.isnan(number):
            return MISSING
        text = f"{self.factor * number:+.{self.decimals}f}"
        return text[1:] if float(text) == 0 else _proper_minus(text)

    def interval(self, interval: Interval) -> str:
        """Such as 94.77 [93.98, 95.56]; without brackets where there is no interval."""
        if math.isnan(interval.low):
            return self.value(interval.mean)
        return f"{self.value(interval.mean)} [{self.value(interval.low)}, {self.value(interval.high)}]"

    def signed_interval(self, interval: Interval) -> str:
        """Such as +0.82 [+0.31, +1.33]."""
        if math.isnan(interval.low):
            return self.signed(interval.mean)
        return f"{self.signed(interval.mean)} [{self.signed(interval.low)}, {self.signed(interval.high)}]"

    def signed_ends(self, interval: Interval) -> str:
        """Such as [+0.31, +1.33]; a dash where there is no interval."""
        if math.isnan(interval.low):
            return MISSING
        return f"[{self.signed(interval.low)}, {self.signed(interval.high)}]"


def scale_for(metric: str, intervals: Iterable[Interval]) -> Scale:
    """Digits that say something: two of the typical half width of the intervals; at most two decimals for percent."""
    intervals = [interval for interval in intervals if not math.isnan(interval.mean)]
    factor = 100.0 if is_share(metric) else 1.0
    half_widths = sorted(factor * (each.high - each.low) / 2 for each in intervals if each.high > each.low)
    magnitude = max((abs(factor * each.mean) for each in intervals), default=1.0)
    if half_widths:
        decimals = 1 - math.floor(math.log10(half_widths[len(half_widths) // 2]))
    else:
        decimals = 3 - math.floor(math.log10(magnitude)) if magnitude > 0 else 2
    if is_share(metric):
        return Scale(factor, min(max(decimals, 1), 2), "%", "points")
    return Scale(factor, min(max(decimals, 0), 12), "", "")


def short_value(value: float, digits: int = 4) -> str:
    """A parameter with a few significant digits, such as 0.001234; a momentum near one keeps its own: 0.99996."""
    from_one = abs(1 - value)
    nines = max(0, -math.floor(math.log10(from_one)) - 1) if 0 < from_one < 1 else 0
    return f"{value:.{digits + nines}g}"


def p_value(p: float) -> str:
    """Such as 0.012, or <0.001."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def count(number: float) -> str:
    """A number of parameters, such as 1.2M or 830k."""
    if math.isnan(number):
        return MISSING
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Such as 45 s, 3.4 min, 1.2 h."""
    if math.isnan(seconds):
        return MISSING
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def short_number(number: float) -> str:
    """Three significant digits."""
    return MISSING if math.isnan(number) else _proper_minus(f"{number:.3g}")


def correlation(rho: float) -> str:
    """With its sign and two decimals."""
    return _proper_minus(f"{rho:+.2f}")


def _proper_minus(text: str) -> str:
    return text.replace("-", MINUS) if "e" not in text else text
