"""The lines of the table as data: baseline, controls, arms. The renderers only write them down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from jepa_lab.reports import numbers
from jepa_lab.reports.content import (
    Reference,
    ReportInput,
    baseline_label,
    control_metric_of,
    deciding_is_higher_better,
    deciding_metric,
    measured_trials,
)
from jepa_lab.reports.footnotes import Decision, footnotes_of
from jepa_lab.reports.image_scores import ImageScores
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

WHAT, RESULTS, CHOICE, COSTS = range(4)
"""Groups of columns that stay side by side in a narrow terminal."""
CONTROLS = {"random_encoder": "random encoder", "raw_pixels": "raw pixels"}


_LABELS: dict[str, Callable[[str], str]] = {
    "baseline": baseline_label,
    "control": "control: {}".format,
    "reference": "reference (not trained here): {}".format,
    "arm": str,
}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        role: a control is measured with the baseline's trials, a reference is an encoder from elsewhere.
        values: the metric by seed; of a reference once per validation split.
        comparison: with the baseline by the metric, paired by seed; None for the baseline.
        holm_p: by the deciding metric, the stricter of both tests; NaN for the baseline, for controls, and where fewer
            than two seeds are paired.
        test: of the test split. test_comparison: with the baseline on it, for a search; None elsewhere, where the
            test split decides nothing.
        parameters: encoder and predictor. seconds: of the training. rankme: at the end. Means over the seeds.
        bold: the best, or not told apart from it; never a control.
    """

    name: str
    role: Literal["baseline", "control", "reference", "arm"]
    changed: Mapping[str, str]
    planned: int
    values: Mapping[int, float]
    mean: Interval
    comparison: Comparison | None
    holm_p: float
    test: Interval
    test_comparison: Comparison | None
    parameters: float
    seconds: float
    rankme: float
    bold: bool

    @property
    def is_trained(self) -> bool:
        """Whether it is one of the arms, the baseline among them."""
        return self.role in ("baseline", "arm")


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

    @property
    def has_images(self) -> bool:
        """Whether any difference that decides has an interval over seeds and images, too."""
        is_search = self.content.search is not None
        deciding = [row.test_comparison if is_search else row.comparison for row in self.rows]
        return any(each is not None and each.crossed is not None for each in deciding)

    def as_text(self) -> TextTable:
        """The table to be written down."""
        rows = tuple(self._cells(row) for row in self.rows)
        return TextTable(self.content.title, self._columns(), rows)

    def _columns(self) -> tuple[Column, ...]:
        metric = self.content.metric
        of_mean, of_test = (f"{each.unit} [95% interval]".strip() for each in (self.scale, self.test_scale))
        difference = f"{self.scale.difference_unit} [95% interval]".strip()
        of_metric = Column(metric, of_mean, group=RESULTS)
        test = Column(self.content.metric_on_test, of_test, group=RESULTS)
        both = (Column("over seeds and images", "[95% interval]", group=RESULTS),) if self.has_images else ()
        over = "[95% over seeds]" if self.has_images else "[95% interval]"
        p = Column("p", "(Holm)", group=RESULTS)
        results: tuple[Column, ...]
        if self.content.search is None:
            decided = Column("difference", f"{self.scale.difference_unit} {over}".strip(), group=RESULTS)
            results = (of_metric, decided, *both, p, test)
        else:
            results = (
                test,
                Column("test difference", f"{self.test_scale.difference_unit} {over}".strip(), group=RESULTS),
                *both,
                p,
                replace(of_metric, group=CHOICE),
                Column("optimistic difference", difference, group=CHOICE),
            )
        return (
            Column("arm", numeric=False),
            Column("differs in", numeric=False, group=WHAT),
            Column("n", group=RESULTS),
            *results,
            Column("parameters", group=COSTS),
            Column("training time", group=COSTS),
            Column("RankMe", group=COSTS),
        )

    def _cells(self, row: Row) -> tuple[Cell, ...]:
        is_search = self.content.search is not None
        of_metric = Cell(self.scale.interval(row.mean), row.mean.mean, row.bold and not is_search)
        test = Cell(self.test_scale.interval(row.test), row.test.mean, row.bold and is_search)
        difference = _difference_cell(row.comparison, self.scale)
        p = Cell(numbers.p_value(row.holm_p), row.holm_p)
        on_test = _difference_cell(row.test_comparison, self.test_scale)
        both: tuple[Cell, ...] = ()
        if self.has_images:
            both = (
                _images_cell(*((row.test_comparison, self.test_scale) if is_search else (row.comparison, self.scale))),
            )
        return (
            Cell(_LABELS[row.role](row.name)),
            Cell(changes_text(row.changed)),
            Cell(f"{len(row.values)}/{row.planned}", len(row.values)),
            *(
                (test, on_test, *both, p, of_metric, difference)
                if is_search
                else (of_metric, difference, *both, p, test)
            ),
            Cell(numbers.count(row.parameters), row.parameters),
            Cell(numbers.duration(row.seconds), row.seconds),
            Cell(numbers.short_number(row.rankme), row.rankme),
        )


def _difference_cell(comparison: Comparison | None, scale: Scale) -> Cell:
    if comparison is None:
        return Cell(numbers.MISSING, math.nan)
    return Cell(scale.signed_interval(comparison.difference), comparison.difference.mean)


def _images_cell(comparison: Comparison | None, scale: Scale) -> Cell:
    """The interval over seeds and images alone: the difference stands beside it."""
    if comparison is None:
        return Cell(numbers.MISSING, math.nan)
    return Cell(scale.signed_ends(comparison.over_images), comparison.over_images.low)


def changes_text(changed: Mapping[str, str]) -> str:
    """Such as masker.name=random, training.epochs=10."""
    return ", ".join(f"{key}={value}" for key, value in changed.items()) or numbers.MISSING


def build_table(content: ReportInput) -> Table:
    """The table of a cleaned content, with its footnotes."""
    trials = measured_trials(content)
    better, scores = content.higher_is_better, ImageScores(trials, content.predictions)
    of_metric = {arm: scores.of(arm, content.metric) for arm in content.arms}
    summaries = summarise_arms(
        trials, content.arms, content.baseline, content.metric, better, content.chosen, of_metric
    )
    deciding = deciding_metric(content)
    decided = summaries
    if deciding != content.metric:
        better = deciding_is_higher_better(content)
        on_test_images = {arm: scores.of(arm, deciding) for arm in content.arms}
        decided = summarise_arms(trials, content.arms, content.baseline, deciding, better, images=on_test_images)
    arms = [_arm_row(content, trials, *both) for both in zip(summaries, decided, strict=True)]
    controls = _control_rows(content, trials, scores)
    references = _reference_rows(content, trials, scores)
    rows = (*arms[:1], *controls, *references, *arms[1:])
    scale = scale_for(content.metric, [row.mean for row in rows] + _differences(row.comparison for row in arms))
    test_metric = content.metric_on_test
    on_test = _differences(row.test_comparison for row in arms)
    test_scale = scale_for(test_metric, [row.test for row in rows] + on_test)
    decision = Decision(deciding, decided, scale if deciding == content.metric else test_scale, scores)
    return Table(content, scale, test_scale, rows, footnotes_of(content, summaries, decision))


def _differences(comparisons: Iterable[Comparison | None]) -> list[Interval]:
    return [each.difference for each in comparisons if each is not None]


def _arm_row(content: ReportInput, trials: pd.DataFrame, summary: ArmSummary, decided: ArmSummary) -> Row:
    """A line of the table.

    Args:
        summary: by the metric. decided: by the deciding metric.
    """
    columns = [content.metric_on_test, "encoder_parameters", "predictor_parameters", "training_seconds", "rankme_end"]
    mine = trials.loc[trials["arm"] == summary.arm, [name for name in columns if name in trials]]
    is_baseline = summary.arm == content.baseline
    return Row(
        name=summary.arm,
        role="baseline" if is_baseline else "arm",
        changed={} if is_baseline else content.changed.get(summary.arm, {}),
        planned=len(content.seeds),
        values=values_by_seed(trials, summary.arm, content.metric),
        mean=summary.mean,
        comparison=summary.comparison,
        holm_p=decided.holm_p,
        test=mean_interval(_numbers(mine, content.metric_on_test)),
        test_comparison=None if content.search is None else decided.comparison,
        parameters=_mean(mine, "encoder_parameters") + _mean(mine, "predictor_parameters"),
        seconds=_mean(mine, "training_seconds"),
        rankme=_mean(mine, "rankme_end"),
        bold=decided.is_best_or_tied,
    )


def _control_rows(content: ReportInput, trials: pd.DataFrame, scores: ImageScores) -> list[Row]:
    """The controls of the baseline's trials, by seed, as long as they were measured."""
    found = []
    for control, name in CONTROLS.items():
        metric = control_metric_of(content.metric, control)
        test = control_metric_of(content.metric_on_test, control)
        if metric is None or test is None or metric not in trials:
            continue
        values = values_by_seed(trials, content.baseline, metric)
        of_baseline = values_by_seed(trials, content.baseline, content.metric)
        images = (scores.of(content.baseline, metric), scores.of(content.baseline, content.metric))
        comparison = paired_comparison(values, of_baseline, images)
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
                test_comparison=_control_on_test(content, trials, test, scores),
                parameters=math.nan,
                seconds=math.nan,
                rankme=math.nan,
                bold=False,
            )
        )
    return found


def _reference_rows(content: ReportInput, trials: pd.DataFrame, scores: ImageScores) -> list[Row]:
    """The references with their differences from the baseline, as far as they were probed by the metric."""
    found = []
    for each in content.references:
        values, on_test = (each.once_per_split(metric) for metric in (content.metric, content.metric_on_test))
        if not values:
            continue
        found.append(
            Row(
                name=each.name,
                role="reference",
                changed={},
                planned=len(values),
                values=values,
                mean=mean_interval(list(values.values())),
                comparison=_of_reference(each, content.metric, content.baseline, trials, scores),
                holm_p=math.nan,
                test=mean_interval(list(on_test.values())),
                test_comparison=None
                if content.search is None
                else _of_reference(each, content.metric_on_test, content.baseline, trials, scores),
                parameters=math.nan,
                seconds=math.nan,
                rankme=math.nan,
                bold=False,
            )
        )
    return found


def _of_reference(
    reference: Reference, metric: str, baseline: str, trials: pd.DataFrame, scores: ImageScores
) -> Comparison:
    """A reference, which is the same with every seed of a split, against the baseline's seeds."""
    images = (reference.scored(metric), scores.of(baseline, metric))
    return paired_comparison(reference.values(metric), values_by_seed(trials, baseline, metric), images)


def _control_on_test(content: ReportInput, trials: pd.DataFrame, test: str, scores: ImageScores) -> Comparison | None:
    """A control against the baseline on the test split, in a search."""
    if content.search is None:
        return None
    own = content.metric_on_test
    of_baseline = values_by_seed(trials, content.baseline, own)
    images = (scores.of(content.baseline, test), scores.of(content.baseline, own))
    return paired_comparison(values_by_seed(trials, content.baseline, test), of_baseline, images)


def _numbers(trials: pd.DataFrame, column: str) -> list[float]:
    return trials[column].dropna().astype(float).tolist() if column in trials else []


def _mean(trials: pd.DataFrame, column: str) -> float:
    found = _numbers(trials, column)
    return float(np.mean(found)) if found else math.nan
