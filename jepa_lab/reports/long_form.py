"""All numbers of all trials as one CSV in long form, for other software."""

from __future__ import annotations

import pandas as pd

from jepa_lab.reports.content import ReportInput, metric_columns

_OF_TRIAL = ["arm", "seed", "metric", "value", "status", "role", "number"]


def long_form(content: ReportInput) -> pd.DataFrame:
    """Columns arm, seed, metric, value, status, role, number; one line for each number of each trial.

    A trial without any number has one line with an empty metric, so that none is lost.
    """
    trials = content.trials
    melted = trials.melt(
        id_vars=["arm", "seed", "status", "role", "number"],
        value_vars=metric_columns(trials, content),
        var_name="metric",
        value_name="value",
    ).dropna(subset=["value"])
    silent = trials[~trials["number"].isin(melted["number"])].assign(metric="", value=float("nan"))
    both = melted if silent.empty else pd.concat([melted, silent]) if len(melted) else silent
    return both[_OF_TRIAL].sort_values(["number", "metric"], kind="stable").reset_index(drop=True)


def csv_text(content: ReportInput) -> str:
    """The long form as CSV; a missing value is empty, numbers are written with all digits."""
    return long_form(content).to_csv(index=False, lineterminator="\n")
