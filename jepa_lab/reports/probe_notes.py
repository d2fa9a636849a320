"""What probes want known about their accuracies, as footnotes that count the trials it holds for."""

from __future__ import annotations

import re

import pandas as pd

from jepa_lab.reports.content import ReportInput, measured_trials

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def notes_of_probes(content: ReportInput) -> list[str]:
    """One sentence per kind of note, with its count among the trials of the table.

    Notes that differ only in their numbers, such as the C that was chosen, are counted together.
    """
    trials = measured_trials(content)
    notes = content.probe_notes[content.probe_notes["run_folder"].isin(trials["run_folder"].astype(str))]
    kinds = notes["note"].str.replace(_NUMBER, "#", regex=True)
    return [
        f"Probe {probe}: {_counts(found, len(trials))}: {_text(found['note'])}."
        for (probe, _), found in notes.groupby([notes["probe"], kinds], sort=False)
    ]


def _counts(found: pd.DataFrame, num_trials: int) -> str:
    """Such as: trained encoder in 12 of 15 trials, raw pixels in 15 of 15."""
    counts = found.groupby("row", sort=False)["run_folder"].nunique()
    told = [f"{'trained encoder' if row == 'trained' else str(row).replace('_', ' ')}" for row in counts.index]
    return ", ".join(
        f"{name} in {count} of {num_trials}{' trials' if place == 0 else ''}"
        for place, (name, count) in enumerate(zip(told, counts, strict=True))
    )


def _text(notes: pd.Series) -> str:
    """The note; where its numbers differ between trials the most frequent one, named an example."""
    most = str(notes.value_counts().index[0])
    return most if notes.nunique() == 1 else f"for example, {most}"
