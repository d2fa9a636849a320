"""The numbers of the table as CSV with all digits, for other software."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from jepa_lab.reports.content import deciding_metric
from jepa_lab.reports.statistics import Comparison, Interval
from jepa_lab.reports.table import Row, Table

_COLUMNS = (
    "arm",
    "role",
    "metric",
    "n",
    "mean",
    "mean_low",
    "mean_high",
    "difference",
    "seeds_low",
    "seeds_high",
    "seeds_images_low",
    "seeds_images_high",
    "p_seeds",
    "p",
    "p_holm",
    "bold",
)


def table_frame(table: Table) -> pd.DataFrame:
    """One line per row of the table; in a search one by the metric of the search, and one on the test split.

    Means and their intervals over seeds; differences from the baseline with the interval over seeds (`seeds_`) and
    over seeds and images (`seeds_images_`); `p_seeds` of the paired t test, `p` the larger of both tests, `p_holm`
    adjusted. What is not known is empty.
    """
    return pd.DataFrame([line for row in table.rows for line in _lines(table, row)], columns=list(_COLUMNS))


def table_csv(table: Table) -> str:
    """`table_frame` as CSV with all digits."""
    return table_frame(table).to_csv(index=False, lineterminator="\n")


def _lines(table: Table, row: Row) -> Iterator[tuple[object, ...]]:
    metric, deciding = table.content.metric, deciding_metric(table.content)
    if deciding == metric:
        yield _line(row, metric, row.mean, row.comparison, decides=True)
    else:
        yield _line(row, metric, row.mean, row.comparison, decides=False)
        yield _line(row, deciding, row.test, row.test_comparison, decides=True)


def _line(row: Row, metric: str, mean: Interval, comparison: Comparison | None, *, decides: bool) -> tuple[object, ...]:
    """A line of the file; p belongs to the metric that decides."""
    own = (row.name, row.role, metric, mean.n, mean.mean, mean.low, mean.high)
    if comparison is None:
        return (*own, *[None] * 8, row.bold and decides)
    over_seeds, over_both = comparison.difference, comparison.over_images
    ends = (over_seeds.mean, over_seeds.low, over_seeds.high, over_both.low, over_both.high)
    tests = (comparison.seeds_p, comparison.p, row.holm_p) if decides else (None, None, None)
    return (*own, *ends, *tests, row.bold and decides)
