"""The best arm of a sweep as flat numbers and words, for a tracker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.statistics import Comparison
from jepa_lab.reports.table import Row, build_table


@dataclass(frozen=True)
class Winner:
    """What a sweep found.

    Attributes:
        numbers: `winner/<metric>`, `baseline/<metric>` (means over the seeds), `winner/difference` with its ends (the
            wider interval, by which the table decides), `winner/p_holm`, `winner/num_seeds`.
        words: `winner`, and `winner_or_as_good`: it with all arms that may be as good.
    """

    numbers: Mapping[str, float]
    words: Mapping[str, str]


def winner_of(content: ReportInput) -> Winner | None:
    """The arm with the best mean; of a search the point that was chosen. None where nothing was measured."""
    content = cleaned(content)
    rows = [row for row in build_table(content).rows if row.is_trained and not math.isnan(row.mean.mean)]
    winner = _best(content, rows)
    if winner is None:
        return None
    baseline = next((row for row in rows if row.role == "baseline"), None)
    numbers = _means("winner", winner, content) | {"winner/num_seeds": float(len(winner.values))}
    if baseline is not None:
        numbers |= _means("baseline", baseline, content)
    decided = winner.comparison if content.search is None else winner.test_comparison
    if decided is not None:
        numbers |= _difference(decided) | {"winner/p_holm": winner.holm_p}
    as_good = [winner.name, *(row.name for row in rows if row.bold and row is not winner)]
    words = {"winner": winner.name, "winner_or_as_good": ", ".join(as_good)}
    return Winner({name: value for name, value in numbers.items() if not math.isnan(value)}, words)


def _best(content: ReportInput, rows: list[Row]) -> Row | None:
    if content.search is not None:
        return next((row for row in rows if row.name == content.search.winner), None)
    choose = max if content.higher_is_better else min
    return choose(rows, key=lambda row: row.mean.mean, default=None)


def _means(who: str, row: Row, content: ReportInput) -> dict[str, float]:
    return {f"{who}/{content.metric}": row.mean.mean, f"{who}/{content.metric_on_test}": row.test.mean}


def _difference(comparison: Comparison) -> dict[str, float]:
    interval = comparison.strict
    return {
        "winner/difference": interval.mean,
        "winner/difference_low": interval.low,
        "winner/difference_high": interval.high,
    }
