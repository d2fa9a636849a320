"""The lines of the table as data: baseline, controls, arms. The renderers only write them down."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from jepa_lab.reports import numbers
from jepa_lab.reports.content import (
    ReportInput,
    baseline_label,
    control_metric_of,
    measured_trials,
    test_split_metric_of,
)
from jepa_lab.reports.footnotes import footnotes_of
from jepa_lab.reports.numbers import Scale, scale_for
from jepa_lab.reports.statistics import (
    ArmSummary,
    Comparison,
    Interval,
    mean_interval,
    paired_comparison,
    summarise_arms,
    values_by_seed,
)
from jepa_lab.tables.cells import Cell, Column, TextTable

WHAT, RESULTS, COSTS = range(3)
"""Groups of columns that stay side by side in a narrow terminal."""
CONTROLS = {"random_encoder": "random encoder", "raw_pixels": "raw pixels"}


_LABELS: dict[str, Callable[[str], str]] = {"baseline": baseline_label, "control": "control: {}".format, "arm": str}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        values: the metric by seed.
        comparison: with the baseline, paired by seed; None for the baseline.
        holm_p: NaN for the baseline, for controls, and where fewer than two seeds are paired.
        test: of the test split; never used for order, bold or p.
        parameters: encoder and predictor. seconds: of the training. rankme: at the end. Means over the seeds.
        bold: the best, or not told apart from it; never a control.
    """

    name: str
    role: Literal["baseline", "control", "arm"]
    changed: Mapping[str, str]
    planned: int
    values: Mapping[int, float]
    mean: Interval
    comparison: Comparison | None
    holm_p: float
    test: Interval
    parameters: float
    seconds: float
    rankme: float
    bold: bool


@dataclass(frozen=True)
class Table:
    """The table of a report.

    Attributes:
        scale, test_scale: how the metric and its number on the test split are written.
        footnotes: sentences below the table.
    """

    content: ReportInput
    scale: Scale
    test_scale: Scale
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]

    def as_text(self) -> TextTable:
        """The table to be written down."""
        rows = tuple(self._cells(row) for row in self.rows)
        return TextTable(self.content.title, self._columns(), rows)

    def _columns(self) -> tuple[Column, ...]:
        metric = self.content.metric
        of_mean, of_test = (f"{each.unit} [95% interval]".strip() for each in (self.scale, self.test_scale))
        return (
            Column("arm", numeric=False),
            Column("differs in", numeric=False, group=WHAT),
            Column("n", group=RESULTS),
            Column(metric, of_mean, group=RESULTS),
            Column("difference", f"{self.scale.difference_unit} [95% interval]".strip(), group=RESULTS),
            Column("p", "(Holm)", group=RESULTS),
            Column(test_split_metric_of(metric), of_test, group=RESULTS),
            Column("parameters", group=COSTS),
            Column("training time", group=COSTS),
            Column("RankMe", group=COSTS),
        )

    def _cells(self, row: Row) -> tuple[Cell, ...]:
        difference = None if row.comparison is None else row.comparison.difference
        return (
            Cell(_LABELS[row.role](row.name)),
            Cell(changes_text(row.changed)),
            Cell(f"{len(row.values)}/{row.planned}", len(row.values)),
            Cell(self.scale.interval(row.mean), row.mean.mean, row.bold),
            Cell(numbers.MISSING, math.nan)
            if difference is None
            else Cell(self.scale.signed_interval(difference), difference.mean),
            Cell(numbers.p_value(row.holm_p), row.holm_p),
            Cell(self.test_scale.interval(row.test), row.test.mean),
            Cell(numbers.count(row.parameters), row.parameters),
            Cell(numbers.duration(row.seconds), row.seconds),
            Cell(numbers.short_number(row.rankme), row.rankme),
        )


def changes_text(changed: Mapping[str, str]) -> str:
    """Such as masker.name=random, training.epochs=10."""
    return ", ".join(f"{key}={value}" for key, value in changed.items()) or numbers.MISSING


def build_table(content: ReportInput) -> Table:
    """The table of a cleaned content, with its footnotes."""
    trials = measured_trials(content)
    summaries = summarise_arms(trials, content.arms, content.baseline, content.metric, content.higher_is_better)
    arms = [_arm_row(content, trials, summary) for summary in summaries]
    controls = _control_rows(content, trials)
    rows = (*arms[:1], *controls, *arms[1:])
    scale = scale_for(content.metric, [row.mean for row in rows] + [_difference(row) for row in arms[1:]])
    test_metric = test_split_metric_of(content.metric)
    test_scale = scale_for(test_metric, [row.test for row in rows])
    return Table(content, scale, test_scale, rows, footnotes_of(content, summaries, scale))


def _difference(row: Row) -> Interval:
    assert row.comparison is not None  # only a baseline has none
    return row.comparison.difference


def _arm_row(content: ReportInput, trials: pd.DataFrame, summary: ArmSummary) -> Row:
    mine = trials[trials["arm"] == summary.arm]
    is_baseline = summary.arm == content.baseline
    return Row(
        name=summary.arm,
        role="baseline" if is_baseline else "arm",
        changed={} if is_baseline else content.changed.get(summary.arm, {}),
        planned=len(content.seeds),
        values=values_by_seed(trials, summary.arm, content.metric),
        mean=summary.mean,
        comparison=summary.comparison,
        holm_p=summary.holm_p,
        test=mean_interval(_numbers(mine, test_split_metric_of(content.metric))),
        parameters=_mean(mine, "encoder_parameters") + _mean(mine, "predictor_parameters"),
        seconds=_mean(mine, "training_seconds"),
        rankme=_mean(mine, "rankme_end"),
        bold=summary.is_best_or_tied,
    )


def _control_rows(content: ReportInput, trials: pd.DataFrame) -> list[Row]:
    """The controls of the baseline's trials, by seed, as long as they were measured."""
    found = []
    for control, name in CONTROLS.items():
        metric = control_metric_of(content.metric, control)
        test = control_metric_of(test_split_metric_of(content.metric), control)
        if metric is None or test is None or metric not in trials:
            continue
        values = values_by_seed(trials, content.baseline, metric)
        comparison = paired_comparison(values, values_by_seed(trials, content.baseline, content.metric))
        mine = trials[trials["arm"] == content.baseline]
        mean, of_test = mean_interval(list(values.values())), mean_interval(_numbers(mine, test))
        found.append(
            Row(
                name=name,
                role="control",
                changed={},
                planned=len(content.seeds),
                values=values,
                mean=mean,
                comparison=comparison,
                holm_p=math.nan,
                test=of_test,
                parameters=math.nan,
                seconds=math.nan,
                rankme=math.nan,
                bold=False,
            )
        )
    return found


def _numbers(trials: pd.DataFrame, column: str) -> list[float]:
    return trials[column].dropna().astype(float).tolist() if column in trials else []


def _mean(trials: pd.DataFrame, column: str) -> float:
    found = _numbers(trials, column)
    return float(np.mean(found)) if found else math.nan
