"""What probes want known reaches the footnotes, with the number of trials that it holds for."""

from __future__ import annotations

import dataclasses

import pandas as pd

from jepa_lab.reports.content import PROBE_NOTE_COLUMNS, ReportInput, cleaned
from jepa_lab.reports.probe_notes import notes_of_probes
from jepa_lab.reports.table import build_table
from tests.unit.reports.frames import make_content, make_search, set_trial

EDGE = "C={} is the largest of c_grid; extend the grid there, or leave it out"


def with_notes(content: ReportInput, *notes: tuple[int, str, str, str]) -> ReportInput:
    """Trials in folders of their own, and notes of some of them: number, row, probe, note."""
    folders = [f"runs/{number}" for number in content.trials["number"]]
    lines = [(f"runs/{number}", *rest) for number, *rest in notes]
    frame = pd.DataFrame(lines, columns=list(PROBE_NOTE_COLUMNS))
    return cleaned(dataclasses.replace(content, trials=content.trials.assign(run_folder=folders), probe_notes=frame))


def test_a_note_is_counted_over_the_trials_of_the_table_for_every_row() -> None:
    notes = [(number, "trained", "logistic", EDGE.format(100)) for number in range(12)]
    notes += [(number, "raw_pixels", "logistic", EDGE.format(100)) for number in range(15)]
    notes += [(3, "trained", "finetune", "the last epoch (50) is the best one; raise epochs")]
    content = with_notes(make_content(num_seeds=5), *notes)
    expected = [
        f"Probe logistic: trained encoder in 12 of 15 trials, raw pixels in 15 of 15: {EDGE.format(100)}.",
        "Probe finetune: trained encoder in 1 of 15 trials: the last epoch (50) is the best one; raise epochs.",
    ]
    assert notes_of_probes(content) == expected
    assert set(expected) <= set(build_table(content).footnotes)


def test_notes_that_differ_in_their_numbers_alone_are_counted_together() -> None:
    found = ["C=1e+06", "C=100", "C=100"]
    notes = [(number, "trained", "logistic", f"{c} is the largest") for number, c in enumerate(found)]
    assert notes_of_probes(with_notes(make_content(num_seeds=5), *notes)) == [
        "Probe logistic: trained encoder in 3 of 15 trials: for example, C=100 is the largest."
    ]


def test_a_trial_without_a_result_and_the_points_of_a_search_are_not_counted() -> None:
    content = set_trial(make_content(num_seeds=2), "wide", 0, status="FAILED")
    notes = [(number, "trained", "logistic", "hm") for number in range(6)]
    assert notes_of_probes(with_notes(content, *notes)) == ["Probe logistic: trained encoder in 5 of 5 trials: hm."]
    points = [(number, "trained", "logistic", "hm") for number in range(20)]
    assert notes_of_probes(with_notes(make_search(), *points)) == []


def test_without_notes_there_is_no_footnote() -> None:
    assert notes_of_probes(cleaned(make_content())) == []
