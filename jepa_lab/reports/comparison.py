"""`jepa-lab compare`: any runs as a table of groups; pure functions from a frame of runs to the input of a report.

Runs that differ only in their seed are a group, which is an arm of the table; the statistics are those of a sweep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from jepa_lab.errors import ConfigError
from jepa_lab.registry import did_you_mean
from jepa_lab.reports import numbers
from jepa_lab.reports.components import ABSENT, merged_components
from jepa_lab.reports.content import (
    CURVE_COLUMNS,
    HAS_RESULT,
    UNFINISHED,
    Reference,
    ReportInput,
    cleaned,
    is_test_metric,
)
from jepa_lab.reports.table import WHAT, Row, Table, build_table
from jepa_lab.runs.predictions import RunPredictions
from jepa_lab.tables.cells import Cell, Column, TextTable

_PARAMS, _METRICS = "params.", "metrics."
_NEVER_SHOWN = re.compile(r"(arm|seed)$|tracking(\.|$)")
_STATUSES = {"SCHEDULED": "WAITING"}  # MLflow's word -> that of a report, where they differ
_CHOSEN_FROM = ("search", "confirm")  # roles of a search's trials by which its winner was chosen
_SPLIT = "data.split_seed"
_MOST_NAMES = 12


@dataclass(frozen=True)
class Question:
    """What a person asks about runs.

    Attributes:
        metric: by which groups are compared and ordered. higher_is_better: of the metric.
        by: the param that makes the groups; None for all params but the seed.
        baseline: a group, by its name, its arm or one of its runs; None for the sweep's baseline, or the oldest group.
    """

    metric: str
    higher_is_better: bool
    by: str | None = None
    baseline: str | None = None


@dataclass(frozen=True)
class ComparedRuns:
    """Runs in groups.

    Attributes:
        content: the groups as arms of a report, the baseline first, then the best first; cleaned.
        keys: params and components in which the groups differ, the columns of the table.
        values: group -> key -> value.
        sweep_folder: of the one sweep that all runs of the baseline belong to, as it was recorded; else None.
    """

    content: ReportInput
    keys: tuple[str, ...]
    values: Mapping[str, Mapping[str, str]]
    sweep_folder: str | None

    def with_references(self, references: tuple[Reference, ...]) -> ComparedRuns:
        """The same runs beside encoders from elsewhere: the references of the baseline's sweep."""
        return replace(self, content=replace(self.content, references=references))

    def with_predictions(self, predictions: Mapping[str, RunPredictions | str]) -> ComparedRuns:
        """The same runs, of which it is known what they predicted, by run folder."""
        return replace(self, content=replace(self.content, predictions=predictions))

    @property
    def run_folders(self) -> tuple[str, ...]:
        """Of the runs in the table, as they were recorded."""
        folders = self.content.trials["run_folder"]
        return tuple(folder for folder in folders if isinstance(folder, str) and folder)

    def as_text(self) -> tuple[TextTable, tuple[str, ...]]:
        """The table with a column for each key, and the sentences below it."""
        table = build_table(self.content)
        return self._with_key_columns(table), (*table.footnotes, *self.content.notes)

    def _with_key_columns(self, table: Table) -> TextTable:
        plain = table.as_text()
        kept = [index for index, column in enumerate(plain.columns) if index and column.heading != "differs in"]
        columns = (
            replace(plain.columns[0], heading="runs"),
            *(Column(key, numeric=False, group=WHAT) for key in self.keys),
            *(plain.columns[index] for index in kept),
        )
        rows = tuple(
            (cells[0], *self._key_cells(row), *(cells[index] for index in kept))
            for row, cells in zip(table.rows, plain.rows, strict=True)
        )
        return TextTable(plain.caption, columns, rows)

    def _key_cells(self, row: Row) -> list[Cell]:
        values = self.values[row.name] if row.is_trained else {}
        return [Cell(values.get(key, numbers.MISSING)) for key in self.keys]


def compare(runs: pd.DataFrame, question: Question, source: str) -> ComparedRuns:
    """Group runs, and lay them out as a report.

    Args:
        runs: one line a run, as `tracking.mlflow_reading.ReadRuns.frame`.
        source: where they are from, in words.
    Raises:
        ConfigError: if no run has the metric, the key or the baseline that was asked for, or none has finished.
    """
    _check_metric(runs, question.metric)
    role = _tags(runs, "role")
    runs = runs.assign(
        status=runs["status"].replace(_STATUSES), seed=_seeds(runs), stage=role.where(role.isin(_CHOSEN_FROM), "")
    )
    runs["group"] = _groups_by_config(runs) if question.by is None else _groups_by_key(runs, question.by)
    baseline, why = _baseline(runs, question.baseline)
    if question.by is None:
        differing = _differing_keys(runs)
        keys, values = merged_components(differing, _values(runs, differing))
    else:
        keys, values = (question.by,), _values(runs, (question.by,))
    arms = _ordered(runs, question, baseline)
    chosen = _chosen_by_a_search(runs)
    trials, notes = _trials(runs, averaged=question.by is not None)
    seeds = tuple(sorted(map(int, trials["seed"].unique())))
    content = ReportInput(
        title=f"{question.metric} of {source}",
        kind="arms",
        baseline=baseline,
        arms=arms,
        changed={arm: {key: values[arm][key] for key in keys} for arm in arms if arm != baseline},
        metric=question.metric,
        higher_is_better=question.higher_is_better,
        seeds=seeds,
        notes=(
            why,
            *notes,
            *_unfinished_notes(runs),
            *_chosen_notes(chosen, question),
            *_inside_notes(runs, question, keys),
            *_metric_notes(question),
        ),
        trials=trials,
        curves=pd.DataFrame(columns=list(CURVE_COLUMNS)),
        split_seeds=_split_seeds(runs, seeds, keys),
        chosen=frozenset(chosen),
    )
    sweeps = set(_tags(runs, "sweep_folder")[runs["group"] == baseline])
    return ComparedRuns(cleaned(content), keys, values, next(iter(sweeps)) or None if len(sweeps) == 1 else None)


def _check_metric(runs: pd.DataFrame, metric: str) -> None:
    known = _with_prefix(runs, _METRICS)
    if not (runs["status"] == "FINISHED").any():
        fates = ", ".join(f"{number} {status}" for status, number in runs["status"].value_counts().items())
        raise ConfigError(f"none of these runs has finished ({fates}); wait, or name other runs")
    if metric not in known:
        choosable = [name for name in known if not is_test_metric(name)]
        raise ConfigError(f"--metric: no run here has the metric {metric!r}{did_you_mean(metric, choosable)}")
    if runs.loc[runs["status"] == "FINISHED", f"{_METRICS}{metric}"].isna().all():
        raise ConfigError(f"--metric: no run that finished has the metric {metric!r}; name another one, or other runs")


def _with_prefix(runs: pd.DataFrame, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in runs.columns if name.startswith(prefix)]


def _tags(runs: pd.DataFrame, name: str) -> pd.Series:
    """A tag of every run; the empty text where there is none."""
    column = f"tags.{name}"
    return runs[column].fillna("") if column in runs else pd.Series("", index=runs.index)


def _param(runs: pd.DataFrame, key: str) -> pd.Series:
    """A param of every run, in words where there is none."""
    return runs[f"{_PARAMS}{key}"].fillna(ABSENT)


def _seeds(runs: pd.DataFrame) -> list[int]:
    """The seed of each run; runs that name none are taken as repetitions, and get negative numbers."""
    given = runs[f"{_PARAMS}seed"] if f"{_PARAMS}seed" in runs else pd.Series(math.nan, index=runs.index)
    seeds = pd.to_numeric(given, errors="coerce")
    return [-1 - place if math.isnan(seed) else int(seed) for place, seed in enumerate(seeds)]


def _groups_by_config(runs: pd.DataFrame) -> pd.Series:
    """A name for each run, the same for those that differ only in the seed.

    By the tag config_digest, which leaves out what changes no result; by all params but the seed where there is none.
    The runs of an arm of a sweep are a group also where each seed has a validation split of its own.
    Trials by which a search chose are groups of their own: their values are optimistic.
    """
    shown = [f"{_PARAMS}{key}" for key in _with_prefix(runs, _PARAMS) if _is_shown(key)]
    flat = runs[shown].fillna(ABSENT).apply(tuple, axis=1) if shown else [()] * len(runs)
    identities = zip(_tags(runs, "config_digest"), flat, _arms_with_splits(runs), runs["stage"], strict=True)
    places: dict[object, list[int]] = {}
    for place, (digest, values, arm, stage) in enumerate(identities):
        places.setdefault((arm or digest or values, stage), []).append(place)
    groups = [""] * len(runs)
    taken: set[str] = set()
    named = pd.DataFrame({"name": runs["name"], "arm": _tags(runs, "arm"), "stage": runs["stage"]})
    for mine in places.values():
        name = _unused(_group_name(named.iloc[mine]), taken)
        taken.add(name)
        for place in mine:
            groups[place] = name
    return pd.Series(groups, index=runs.index)


def _arms_with_splits(runs: pd.DataFrame) -> list[tuple[str, str] | None]:
    """Of each run the sweep and the arm, where the arm's seeds have validation splits of their own; else None."""
    if f"{_PARAMS}{_SPLIT}" not in runs:
        return [None] * len(runs)
    of_a_table = _tags(runs, "role") == "arm"
    arms = list(zip(_tags(runs, "sweep_folder"), _tags(runs, "arm"), strict=True))
    splits: dict[tuple[str, str], set[str]] = {}
    for arm, split in zip(arms, _param(runs, _SPLIT), strict=True):
        splits.setdefault(arm, set()).add(split)
    return [arm if table and len(splits[arm]) > 1 else None for arm, table in zip(arms, of_a_table, strict=True)]


def _split_seeds(runs: pd.DataFrame, seeds: Sequence[int], keys: Sequence[str]) -> tuple[int, ...] | None:
    """The validation split of each seed, where each has one of its own that is the same in all groups; else None."""
    if f"{_PARAMS}{_SPLIT}" not in runs or _SPLIT in keys:
        return None
    by_seed = _param(runs, _SPLIT).groupby(runs["seed"]).unique()
    splits = [split for seed in seeds for split in by_seed[seed]]
    is_one_each = len(splits) == len(set(splits)) == len(seeds) > 1
    return tuple(map(int, splits)) if is_one_each and ABSENT not in splits else None


def _group_name(mine: pd.DataFrame) -> str:
    """The arm that all runs of a group have in common, else the name of the run without its seed."""
    arms = set(mine["arm"])
    arm = arms.pop() if len(arms) == 1 else ""
    name = arm or re.sub(r"-s\d+(-\d+)?$", "", str(mine["name"].iloc[0]))
    stage = mine["stage"].iloc[0]
    return f"{name} ({stage})" if stage else name


def _unused(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _groups_by_key(runs: pd.DataFrame, key: str) -> pd.Series:
    known = _with_prefix(runs, _PARAMS)
    if key not in known:
        raise ConfigError(f"--by: no run here has the param {key!r}{did_you_mean(key, known)}")
    return _param(runs, key)


def _is_shown(key: str) -> bool:
    return not _NEVER_SHOWN.match(key)


def _differing_keys(runs: pd.DataFrame) -> tuple[str, ...]:
    """The params that differ between groups and not within one, without those that their own parts say again.

    The record of a sweep has a swept `loss` beside `loss.name` and `loss.beta`.
    """
    found = []
    for key in filter(_is_shown, _with_prefix(runs, _PARAMS)):
        of_groups = _param(runs, key).groupby(runs["group"], sort=False)
        if of_groups.first().nunique() > 1 and (of_groups.nunique() == 1).all():
            found.append(key)
    return tuple(key for key in found if not any(other.startswith(f"{key}.") for other in found))


def _values(runs: pd.DataFrame, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Group -> key -> value."""
    by_key = {key: _param(runs, key).groupby(runs["group"], sort=False).first() for key in keys}
    return {group: {key: str(by_key[key][group]) for key in by_key} for group in dict.fromkeys(runs["group"])}


def _baseline(runs: pd.DataFrame, asked: str | None) -> tuple[str, str]:
    """The group that the others are compared with, and a sentence that says why."""
    groups = list(dict.fromkeys(runs["group"]))
    if asked is None:
        is_flagged = (_tags(runs, "is_baseline") == "true") & (runs["stage"] == "")
        flagged = list(dict.fromkeys(runs.loc[is_flagged, "group"]))
        if len(flagged) == 1:
            return flagged[0], f"Baseline: {flagged[0]}, that of the sweep."
        oldest = str(runs.sort_values("started", kind="stable")["group"].iloc[0])
        return oldest, f"Baseline: {oldest}, the oldest group; --baseline chooses another one."
    if asked in groups:
        return asked, f"Baseline: {asked}, as asked for."
    matches = (runs["name"] == asked) | (runs["run_id"] == asked) | (_tags(runs, "arm") == asked)
    named = list(dict.fromkeys(runs.loc[matches, "group"]))
    if not named:
        raise ConfigError(f"--baseline: there is no group {asked!r}{did_you_mean(asked, groups)}")
    if len(named) > 1:
        raise ConfigError(f"--baseline: {asked!r} is in several groups ({', '.join(named)}); name one of these")
    return named[0], f"Baseline: {named[0]}, as asked for."


def _ordered(runs: pd.DataFrame, question: Question, baseline: str) -> tuple[str, ...]:
    """The baseline, then the other groups, the best mean first; those without a number last."""
    finished = runs[runs["status"].isin(HAS_RESULT)]
    means = finished.groupby("group")[f"{_METRICS}{question.metric}"].mean()
    sign = -1 if question.higher_is_better else 1

    def place(group: str) -> float:
        mean = float(means.get(group, math.nan))
        return math.inf if math.isnan(mean) else sign * mean

    others = [group for group in dict.fromkeys(runs["group"]) if group != baseline]
    return (baseline, *sorted(others, key=place))


def _trials(runs: pd.DataFrame, averaged: bool) -> tuple[pd.DataFrame, list[str]]:
    """One line for each group and seed that finished, and one for each run that did not; what was done about repeats.

    Trials by which a search chose show no number of the test split, so that nothing can be chosen by it.

    Args:
        averaged: runs of a group and a seed are different experiments and are averaged; else they are repetitions of
            the same one, of which the latest counts.
    """
    metrics = _with_prefix(runs, _METRICS)
    plain = runs.rename(columns={f"{_METRICS}{name}": name for name in metrics} | {"name": "run", "group": "arm"})
    plain = plain[["arm", "seed", "status", "run", "stage", *metrics]].assign(run_folder=_tags(runs, "run_folder"))
    notes = []
    is_chosen_from = plain["stage"] != ""
    if is_chosen_from.any():
        plain.loc[is_chosen_from, [name for name in metrics if is_test_metric(name)]] = math.nan
        notes.append(
            "Trials by which a search chose (search, confirm) are optimistic, and show no accuracy on the test split."
        )
    is_finished = plain["status"].isin(HAS_RESULT)
    finished, rest = plain[is_finished], plain[~is_finished]
    is_replaced = finished.duplicated(["arm", "seed"], keep="last")
    if is_replaced.any() and averaged:
        finished = finished.groupby(["arm", "seed", "status"], sort=False, as_index=False)[metrics].mean()
        notes.append("Runs of the same group and seed are averaged first, so that a seed counts once.")
    elif is_replaced.any():
        names = _at_most(finished.loc[is_replaced, "run"])
        notes.append(f"The latest run of a group and seed counts; {int(is_replaced.sum())} repeated: {names}.")
        finished = finished[~is_replaced]
    both = pd.concat([finished, rest], ignore_index=True) if len(rest) else finished.reset_index(drop=True)
    both = both.drop(columns=["run", "stage"], errors="ignore")
    return both.assign(number=range(len(both)), role="arm"), notes


def _unfinished_notes(runs: pd.DataFrame) -> list[str]:
    """The runs that go on; the table's own footnotes name those that failed or were killed."""
    unfinished = runs[runs["status"].isin(UNFINISHED)]
    return [f"Not used, because they are not over: {_at_most(unfinished['name'])}."] if len(unfinished) else []


def _chosen_by_a_search(runs: pd.DataFrame) -> list[str]:
    """Groups that a search chose, or chose from, by the validation images that score them here."""
    is_point = (_tags(runs, "is_baseline") != "true") & _tags(runs, "role").isin([*_CHOSEN_FROM, "final"])
    return list(dict.fromkeys(runs.loc[is_point, "group"]))


def _chosen_notes(chosen: Sequence[str], question: Question) -> list[str]:
    if not chosen:
        return []
    return [
        f"Points of a search, which chose by these validation images: {_at_most(chosen)}. Their differences by "
        f"{question.metric} are optimistic, have no p and are never bold; the report of the search compares its winner "
        "on the test split."
    ]


def _at_most(names: Iterable[object]) -> str:
    listed = list(map(str, names))
    rest = f" and {len(listed) - _MOST_NAMES} more" if len(listed) > _MOST_NAMES else ""
    return ", ".join(listed[:_MOST_NAMES]) + rest


def _inside_notes(runs: pd.DataFrame, question: Question, keys: Sequence[str]) -> list[str]:
    """What the groups do not hold still."""
    return [*_data_notes(keys), *_other_notes(runs, question, keys)]


def _data_notes(keys: Sequence[str]) -> list[str]:
    """Scores on different images are no comparison, whatever the table looks like."""
    data = [key for key in keys if key.startswith(("data.", "probe.data"))]
    if not data:
        return []
    return [
        f"NOT COMPARABLE: the runs differ in their images ({_at_most(data)}), so their scores are not those of one "
        "task; name runs of one data set."
    ]


def _other_notes(runs: pd.DataFrame, question: Question, keys: Sequence[str]) -> list[str]:
    """What else varies, or that nothing does."""
    if question.by is None:
        same = not keys and runs["group"].nunique() > 1
        return ["The groups differ in no param that MLflow has."] if same else []
    params = [key for key in _with_prefix(runs, _PARAMS) if _is_shown(key) and key != question.by]
    varying = [key for key in params if (_param(runs, key).groupby(runs["group"]).nunique() > 1).any()]
    if not varying:
        return []
    return [
        f"Inside a group these keys vary as well, and a difference between groups need not be that of {question.by}: "
        f"{_at_most(varying)}."
    ]


def _metric_notes(question: Question) -> list[str]:
    better = "Higher" if question.higher_is_better else "Lower"
    notes = [f"{better} is better. The baseline comes first, then groups in the order of {question.metric}."]
    if "loss" in question.metric:
        notes.append("A loss can fall in a collapse, and losses of other targets do not compare: choose by a probe.")
    return notes
