"""The smaller tables of a report: the plan, every trial with its fate, the best points of a search."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from jepa_lab.reports import numbers
from jepa_lab.reports.content import HAS_RESULT, ReportInput
from jepa_lab.reports.numbers import scale_for
from jepa_lab.reports.statistics import mean_interval
from jepa_lab.reports.table import changes_text
from jepa_lab.tables.cells import Cell, Column, TextTable, text_columns

_TOP_POINTS = 10
_MOST_TRIALS = 300
"""Lines of the page's table of trials; a browser sorts and lays out so many at once."""


def plan_table(content: ReportInput) -> TextTable:
    """Every arm and what it changes."""
    rows = [
        (Cell(arm), Cell("baseline" if arm == content.baseline else changes_text(content.changed.get(arm, {}))))
        for arm in content.arms
    ]
    return TextTable("Plan", text_columns("arm", "differs from the baseline in"), tuple(rows))


def trials_table(content: ReportInput) -> TextTable:
    """Every trial, whatever became of it; of many those without a result, and the best of the others."""
    shown, caption = _shown_trials(content)
    scale = scale_for(content.metric, [mean_interval([value]) for value in content.trials[content.metric].dropna()])
    columns = (
        Column("trial"),
        *text_columns("arm"),
        Column("seed"),
        *text_columns("role", "status"),
        Column(content.metric, scale.unit),
        *text_columns("error", "run folder"),
    )
    rows = tuple(
        (
            Cell(str(trial["number"]), float(trial["number"])),
            Cell(str(trial["arm"])),
            Cell(str(trial["seed"]), float(trial["seed"])),
            Cell(str(trial["role"])),
            Cell(str(trial["status"])),
            Cell(scale.value(trial[content.metric]), trial[content.metric]),
            Cell(_text(trial["error"])),
            Cell(_text(trial["run_folder"])),
        )
        for trial in shown.to_dict("records")
    )
    return TextTable(caption, columns, rows)


def _shown_trials(content: ReportInput) -> tuple[pd.DataFrame, str]:
    """The trials that the table has room for, and its caption."""
    trials = content.trials
    if len(trials) <= _MOST_TRIALS:
        return trials, "Trials"
    has_value = trials["status"].isin(HAS_RESULT) & trials[content.metric].notna()
    others = trials[~has_value].head(_MOST_TRIALS // 2)
    ranked = trials[has_value].sort_values(content.metric, ascending=not content.higher_is_better, kind="stable")
    best = ranked.head(_MOST_TRIALS - len(others))
    parts = [f"{len(others)} of the {(~has_value).sum()} without a result"] if len(others) else []
    parts += [f"the best {len(best)} of the {len(ranked)} with one"] if len(best) else []
    return pd.concat([others, best]), f"{len(trials)} trials; shown are {' and '.join(parts)}"


def top_points_table(content: ReportInput) -> TextTable | None:
    """The best points that a search tried; None outside a search, and before its first result."""
    if content.search is None:
        return None
    trials = content.trials
    tried = trials[(trials["role"] == "search") & trials["status"].isin(HAS_RESULT)].dropna(subset=[content.metric])
    if tried.empty:
        return None
    best = tried.sort_values(content.metric, ascending=not content.higher_is_better, kind="stable").head(_TOP_POINTS)
    scale = scale_for(content.metric, [mean_interval([value]) for value in best[content.metric]])
    columns = (
        Column("trial"),
        Column("seed"),
        Column(content.metric, scale.unit),
        *(Column(name, numeric=pd.api.types.is_numeric_dtype(best[name])) for name in content.search.parameters),
    )
    rows = tuple(
        (
            Cell(str(trial["number"]), float(trial["number"])),
            Cell(str(trial["seed"]), float(trial["seed"])),
            Cell(scale.value(trial[content.metric]), trial[content.metric]),
            *(_parameter_cell(trial[name]) for name in content.search.parameters),
        )
        for trial in best.to_dict("records")
    )
    caption = (
        f"Best points of the search, {len(best)} of {len(tried)}; chosen by these values, which makes them optimistic"
    )
    return TextTable(caption, columns, rows)


def winner_sentence(content: ReportInput) -> str | None:
    """The point that a search chose, with the value of every searched parameter; None outside a search and before."""
    search = content.search
    if search is None or search.winner is None:
        return None
    of_winner = content.trials[content.trials["arm"] == search.winner]
    if of_winner.empty:
        return None
    values = {name: _parameter_cell(of_winner.iloc[0][name]).text for name in search.parameters if name in of_winner}
    chosen = ", ".join(f"{name}={value}" for name, value in values.items() if value != numbers.MISSING)
    return f"Winner of the search: {search.winner}, {chosen}." if chosen else f"Winner of the search: {search.winner}."


def _parameter_cell(value: object) -> Cell:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Cell(numbers.MISSING if math.isnan(value) else numbers.short_value(value, 6), float(value))
    return Cell(_text(value) or numbers.MISSING)


def _text(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return "" if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) else str(value)
