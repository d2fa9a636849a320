"""Whether trials were trained on different kinds of devices, whose rounding differs."""

from __future__ import annotations

import pandas as pd

from jepa_lab.reports.content import ReportInput, measured_trials
from jepa_lab.reports.wording import at_most, counted


def notes_on_devices(content: ReportInput) -> list[str]:
    """A note where the measured trials had several kinds of devices; a warning where arms differ in it."""
    trials = measured_trials(content)
    kinds = trials["device"].dropna()
    if kinds.nunique() < 2:
        return []
    counts = ", ".join(f"{kind} ({counted(int(number), 'trial')})" for kind, number in kinds.value_counts().items())
    begin = f"Trials were trained on different kinds of devices, whose rounding and speed differ: {counts}."
    differing = _arms_that_differ(trials, content)
    if not differing:
        return [f"{begin} Each seed had the same kind in every arm, so that the paired differences are fair."]
    return [
        f"{begin} For some seed these arms had another kind than the baseline, so that their differences are partly "
        f"those of the devices: {at_most(differing, 'arms')}. The column `device` of trials.csv has the kind of each "
        "trial; let all trials run on one kind, for example by a constraint of the executor."
    ]


def _arms_that_differ(trials: pd.DataFrame, content: ReportInput) -> list[str]:
    by_seed = trials.pivot(index="seed", columns="arm", values="device")
    if content.baseline not in by_seed:
        return []
    of_baseline = by_seed[content.baseline]
    return [
        arm
        for arm in content.arms
        if arm in by_seed and ((by_seed[arm] != of_baseline) & by_seed[arm].notna() & of_baseline.notna()).any()
    ]
