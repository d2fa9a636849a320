"""Which trials collapsed, which were warned of, and which learned nothing: sentences with counts."""

from __future__ import annotations

import pandas as pd

from jepa_lab.measures import MEASURES
from jepa_lab.reports.content import HAS_RESULT, ReportInput, control_metric_of, measured_trials, table_trials
from jepa_lab.reports.wording import MOST_NAMES, at_most, counted, names_of_trials

_HEADLINES = tuple(f"probe/validation_{measure}" for measure in MEASURES)


def is_collapsed(trials: pd.DataFrame) -> pd.Series:
    """Whether each trial was marked collapsed, probed afterwards or not."""
    return _is_one(trials, "collapsed") | (trials["status"] == "COLLAPSED")


def notes_of_collapse(content: ReportInput) -> list[str]:
    """About the trials of the table, none of which was ended because of it."""
    trials = table_trials(content)
    collapsed = is_collapsed(trials)
    notes = []
    if collapsed.any():
        with_number = int(trials.loc[collapsed & trials["status"].isin(HAS_RESULT), content.metric].notna().sum())
        notes.append(
            f"{counted(int(collapsed.sum()), 'trial')} collapsed (features that hardly depend on the image, or that "
            f"differ along few directions): {names_of_trials(trials[collapsed])}. With a result, and therefore in the "
            f"means: {with_number}."
        )
    warned = _is_one(trials, "collapse_warned") & ~collapsed
    if warned.any():
        notes.append(
            f"{counted(int(warned.sum()), 'trial')} ended with a warning of collapse, which the log of each explains: "
            f"{names_of_trials(trials[warned])}."
        )
    return [*notes, *_no_better_than_random(content)]


def _no_better_than_random(content: ReportInput) -> list[str]:
    """The trials whose encoder does not beat the random one that it started as, counted by arm."""
    trials = measured_trials(content)
    pairs = [(metric, control_metric_of(metric, "random_encoder")) for metric in (content.metric, *_HEADLINES)]
    known = [pair for pair in pairs if pair[0] in trials and pair[1] in trials]
    if not known:
        return []
    metric, control = known[0]
    compared = trials.dropna(subset=[metric, control])
    told = []
    for arm, mine in compared.groupby("arm", sort=False):
        number = int((mine[metric] <= mine[control]).sum())
        if number:
            told.append(f"{arm} in {number} of {counted(len(mine), 'trial')}")
    if not told:
        return []
    return [
        f"NOT BETTER THAN RANDOM: by {metric}, these trained encoders do not beat the random ones that they started "
        f"as: {at_most(told, 'arms')}. There, nothing shows that pretraining has taught anything that the probe can "
        "use, whatever the difference from the baseline."
    ]


def notes_of_ended_points(content: ReportInput) -> list[str]:
    """The points of a search that were ended early: they are in no table, and are counted all the same."""
    points = content.trials[content.trials["role"] == "search"]
    collapsed = is_collapsed(points)
    notes = []
    for chosen, words in (
        (collapsed, "collapsed, were ended then, and count as pruned"),
        ((points["status"] == "PRUNED") & ~collapsed, "were pruned because of their intermediate values"),
    ):
        if chosen.any():
            names = [str(number) for number in points.loc[chosen, "number"]]
            shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
            notes.append(f"Of the {counted(len(points), 'point')} of the search, {len(names)} {words}: {shown}.")
    return notes


def _is_one(trials: pd.DataFrame, column: str) -> pd.Series:
    """Where a mark is set; nowhere, for trials that were made before there was one."""
    return trials[column] == 1 if column in trials else pd.Series(False, index=trials.index)
