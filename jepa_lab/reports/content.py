"""What a report is made from: a frame of trials, and a few words about the plan they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from jepa_lab.measures import MEASURES, is_share
from jepa_lab.runs.predictions import RunPredictions, ScoredImages

Kind = Literal["arms", "grid", "one_at_a_time", "search"]

HAS_RESULT = ("FINISHED", "COLLAPSED")
"""Statuses of trials whose numbers enter the table. A collapsed run that was probed counts: it is what the arm does."""
UNFINISHED = ("RUNNING", "WAITING")
CURVE_COLUMNS = ("arm", "seed", "step", "epoch", "name", "value")
PROBE_NOTE_COLUMNS = ("run_folder", "row", "probe", "note")


@dataclass(frozen=True)
class SearchInput:
    """What a search adds.

    Attributes:
        history: columns `number`, `value`, `best`, one line a trial of the search; value is NaN where a trial has
            none, best is the best value so far.
        importances: share of the variation by searched parameter; may be empty.
        parameters: the searched columns of the frame of trials.
        winner: the arm of the point that was chosen; None while nothing is chosen.
    """

    history: pd.DataFrame
    importances: Mapping[str, float]
    parameters: tuple[str, ...]
    winner: str | None


@dataclass(frozen=True)
class Reference:
    """An encoder that no trial has trained, probed once per validation split as the baseline's runs are.

    Attributes:
        name: of its line. source: where it is from.
        splits: seed of the table -> the split that it was probed on; without the seeds whose split it was not.
        metrics, predictions: by split; metrics by the names of a run's result, as of its own encoder.
        notes: what a reader should know, such as that positions were resampled.
    """

    name: str
    source: str
    splits: Mapping[int, int]
    metrics: Mapping[int, Mapping[str, float | None]]
    predictions: Mapping[int, RunPredictions]
    notes: tuple[str, ...] = ()

    def values(self, metric: str) -> dict[int, float]:
        """A number by seed: seeds of the same split have the same one."""
        found = {seed: self.metrics[split].get(metric) for seed, split in self.splits.items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def once_per_split(self, metric: str) -> dict[int, float]:
        """A number by the first seed of each split: as often as it was measured."""
        first: dict[int, int] = {}
        for seed, split in self.splits.items():
            first.setdefault(split, seed)
        values = self.values(metric)
        return {seed: values[seed] for seed in first.values() if seed in values}

    def scored(self, metric: str) -> dict[int, ScoredImages]:
        """Which images were right, by seed."""
        kept = {split: predictions.scored(metric) for split, predictions in self.predictions.items()}
        found = {seed: kept.get(split) for seed, split in self.splits.items()}
        return {seed: images for seed, images in found.items() if images is not None}


@dataclass(frozen=True)
class ReportInput:
    """Everything that a report shows.

    Attributes:
        arms: the lines of the table, the baseline first; for a search the baseline and the winner.
        changed: arm -> the keys in which it differs from the baseline, with their values.
        metric: a column of `trials`; where it is missing no trial has been measured by it.
        seeds: planned for each arm; for a search the seeds on which winner and baseline are trained again.
        notes: sentences about conditions: versions, device, commit, pruning.
        trials: one line a trial: `arm`, `seed`, `status`, optionally `number`, `role`, `run_folder`, `error`,
            `device` (the kind that trained it), the swept keys, and one column for each number of a result.
        curves: columns arm, seed, step, epoch, name, value: the metrics of finished trials; may be empty.
        search: for kind "search".
        probe_notes: columns run_folder, row (`trained` or a control), probe, note: what the probes of finished trials
            want known; may be empty.
        predictions: of the run folder (as text) of each trial with a result, or in words why there are none; without
            an entry the run kept none.
        split_seeds: of the validation split that each of `seeds` has for itself; None for one split.
        chosen: arms that were chosen by this metric on these images, outside a report of kind "search": their
            differences are optimistic, so that they get no p and are never bold.
        references: encoders that no trial has trained, beside the controls.
    """

    title: str
    kind: Kind
    baseline: str
    arms: tuple[str, ...]
    changed: Mapping[str, Mapping[str, str]]
    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...]
    notes: tuple[str, ...]
    trials: pd.DataFrame
    curves: pd.DataFrame
    search: SearchInput | None = None
    probe_notes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(PROBE_NOTE_COLUMNS)))
    predictions: Mapping[str, RunPredictions | str] = field(default_factory=dict)
    split_seeds: tuple[int, ...] | None = None
    chosen: frozenset[str] = frozenset()
    references: tuple[Reference, ...] = ()

    @property
    def metric_on_test(self) -> str:
        """The metric's number on the test split; the probe's where no probe has the metric on validation images."""
        if is_share(self.metric) and not self.metric.startswith("probe/online"):
            return self.metric.replace("validation_", "test_")
        of_probe = [f"probe/test_{measure}" for measure in MEASURES]
        return next((name for name in of_probe if name in self.trials), of_probe[0])


def cleaned(content: ReportInput) -> ReportInput:
    """The same content with every column that a report reads, and without numbers that it may not show.

    Non-finite numbers become missing ones. In a search the test split belongs to the winner and the baseline alone,
    so that nothing can be chosen by it: the other trials' test numbers are taken out.
    """
    trials = content.trials.reset_index(drop=True)
    defaults = {
        "number": range(len(trials)),
        "role": "arm",
        "error": None,
        "device": None,
        "run_folder": None,
        content.metric: math.nan,
    }
    missing = {name: value for name, value in defaults.items() if name not in trials}
    trials = trials.assign(**missing)
    for name in metric_columns(trials, content):
        values = pd.to_numeric(trials[name]).astype(float)
        trials[name] = values.where(np.isfinite(values))
    if content.search is not None:
        shown = (trials["role"] != "search") & trials["arm"].isin([content.baseline, content.search.winner])
        hidden = [name for name in metric_columns(trials, content) if is_test_metric(name)]
        trials.loc[~shown, hidden] = math.nan
    curves = content.curves if len(content.curves) else pd.DataFrame(columns=list(CURVE_COLUMNS))
    return replace(content, trials=trials, curves=curves[np.isfinite(curves["value"].astype(float))])


def metric_columns(trials: pd.DataFrame, content: ReportInput) -> list[str]:
    """The columns that hold measured numbers; a swept key may be a number too, but it was chosen."""
    swept = {key for keys in content.changed.values() for key in keys} | set(swept_parameters(content))
    others = {"number", "seed", "arm", "role", "status", "error", "run_folder", "device"} | swept
    return [
        name
        for name in trials.columns
        if name not in others and (name == content.metric or pd.api.types.is_numeric_dtype(trials[name]))
    ]


def baseline_label(name: str) -> str:
    """How the baseline is called in tables and figures."""
    return name if name == "baseline" else f"baseline: {name}"


def swept_parameters(content: ReportInput) -> tuple[str, ...]:
    """The searched columns; none outside a search."""
    return content.search.parameters if content.search is not None else ()


def is_test_metric(name: str) -> bool:
    """Whether a number comes from the test split, such as `probe/knn_test_accuracy`."""
    return "test_" in name.rsplit("/", maxsplit=1)[-1]


def table_trials(content: ReportInput) -> pd.DataFrame:
    """The trials of the table's arms, whatever became of them.

    In a search the points it tried are no part of the table: there the chosen point and the baseline are compared on
    the seeds on which both are trained again (role "final", or "confirm" where nothing is final).
    """
    trials = content.trials[content.trials["role"] != "search"]
    if (trials["role"] == "final").any():
        trials = trials[trials["role"] == "final"]
    return trials[trials["arm"].isin(content.arms)]


def measured_trials(content: ReportInput) -> pd.DataFrame:
    """The trials of the table that have a result, one for each arm and seed; a later try replaces an earlier one."""
    trials = table_trials(content)
    trials = trials[trials["status"].isin(HAS_RESULT)]
    return trials.drop_duplicates(["arm", "seed"], keep="last")


def deciding_metric(content: ReportInput) -> str:
    """The metric that p and bold go by: the table's own, and in a search the one on the test split.

    The validation images chose the winner of a search: fresh seeds do not undo the luck that it had with them.
    """
    return content.metric if content.search is None else content.metric_on_test


def deciding_is_higher_better(content: ReportInput) -> bool:
    """Whether more of the deciding metric is better: it is a share, also where the metric is none, such as a loss."""
    return content.higher_is_better or (deciding_metric(content) != content.metric and not is_share(content.metric))


def control_metric_of(metric: str, control: str) -> str | None:
    """The metric's name for a control such as `random_encoder`; None where controls do not have it."""
    family, slash, name = metric.partition("/")
    return f"{control}/{name}" if family == "probe" and slash else None
