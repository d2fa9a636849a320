"""The trials of a sweep as a frame: what was planned, how each ended, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from jepa_lab.errors import RunFolderError
from jepa_lab.reports.content import PROBE_NOTE_COLUMNS
from jepa_lab.runs.predictions import RunPredictions, predictions_of_result
from jepa_lab.tracking.environment import device_in_words
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder


@dataclass(frozen=True)
class TrialRecord:
    """A trial of the study.

    Attributes:
        number: in the study.
        status: FINISHED, COLLAPSED (finished or ended, marked as collapsed), FAILED, PRUNED, RUNNING or WAITING.
        role: "arm"; "search", "confirm" or "final" in a search.
        values: of every swept key.
        folder: its run folder, where it has one. error: why it failed.
    """

    number: int
    arm: str
    seed: int
    status: str
    role: str
    values: Mapping[str, Any]
    folder: RunFolder | None
    error: str | None

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of result.json of a trial that finished, read once; nothing for another one."""
        if self.folder is None or self.status not in ("FINISHED", "COLLAPSED"):
            return {}
        try:
            return self.folder.read_result() or {}
        except RunFolderError:
            return {}


def trials_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """One line a trial: the record's fields, a column for each swept key and one for each number of its result.

    Numbers that only some trials have are NaN elsewhere.
    """
    lines = []
    for record in records:
        line: dict[str, Any] = {
            "number": record.number,
            "arm": record.arm,
            "seed": record.seed,
            "status": record.status,
            "role": record.role,
            "run_folder": None if record.folder is None else str(record.folder.path),
            "error": record.error,
            "device": _device(record),
            **record.values,
        }
        # The numbers of a trial that has not finished mean nothing yet.
        lines.append({**line, **record.result.get("metrics", {})})
    columns = ["number", "arm", "seed", "status", "role", "run_folder", "error", "device"]
    return pd.DataFrame(lines) if lines else pd.DataFrame(columns=columns)


def _device(record: TrialRecord) -> str | None:
    """The kind of device that trained a trial; None where nothing says it."""
    if record.folder is None:
        return None
    try:
        return device_in_words(record.folder.read_environment())
    except RunFolderError:
        return None


def predictions_of(records: Sequence[TrialRecord]) -> dict[str, RunPredictions | str]:
    """What the probes of each finished trial predicted, by its run folder; in words where there is none."""
    return {
        str(record.folder.path): predictions_of_result(record.folder, record.result)
        for record in records
        if record.folder is not None and record.result
    }


def probe_notes_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """What the probes of finished trials want known about their accuracies, one line per note."""
    lines = [
        (str(record.folder.path), row, probe, note)
        for record in records
        if record.folder is not None
        for row, outcomes in (record.result.get("probe") or {}).items()
        for probe, outcome in outcomes.items()
        for note in outcome["notes"]
    ]
    return pd.DataFrame(lines, columns=list(PROBE_NOTE_COLUMNS))


def curves_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Learning curves of the trials that finished, in long form: arm, seed, step, epoch, name, value."""
    rows = [
        (record.arm, record.seed, row.step, row.epoch, name, value)
        for record in records
        if record.folder is not None and record.status in ("FINISHED", "COLLAPSED")
        for row in read_metrics(record.folder.metrics)
        for name, value in row.metrics.items()
        if value is not None
    ]
    columns = ["arm", "seed", "step", "epoch", "name", "value"]
    return pd.DataFrame(rows, columns=columns)
