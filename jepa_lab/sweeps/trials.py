"""The trials of a sweep as a frame: what was planned, how each ended, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jepa_lab.errors import RunFolderError
from jepa_lab.reports.content import PROBE_NOTE_COLUMNS
from jepa_lab.runs.predictions import RunPredictions, predictions_of_run
from jepa_lab.tracking.environment import device_in_words
from jepa_lab.tracking.metrics import metrics_frame
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
        lines.append({**line, **_metrics(record)})
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


def _metrics(record: TrialRecord) -> dict[str, float | None]:
    """The numbers of a trial that finished; those of another one mean nothing yet."""
    return dict(_result(record).get("metrics", {}))


def _result(record: TrialRecord) -> dict[str, Any]:
    """The content of result.json of a trial that finished; nothing for another one."""
    if record.folder is None or record.status not in ("FINISHED", "COLLAPSED"):
        return {}
    try:
        result = record.folder.read_result()
    except RunFolderError:
        return {}
    return {} if result is None else result


def predictions_of(records: Sequence[TrialRecord]) -> dict[str, RunPredictions | str]:
    """What the probes of each finished trial predicted, by its run folder; in words where there is none."""
    return {
        str(record.folder.path): predictions_of_run(record.folder)
        for record in records
        if record.folder is not None and _result(record)
    }


def probe_notes_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """What the probes of finished trials want known about their accuracies, one line per note."""
    lines = [
        (str(record.folder.path), row, probe, note)
        for record in records
        if record.folder is not None
        for row, outcomes in (_result(record).get("probe") or {}).items()
        for probe, outcome in outcomes.items()
        for note in outcome["notes"]
    ]
    return pd.DataFrame(lines, columns=list(PROBE_NOTE_COLUMNS))


def curves_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Learning curves of the trials that finished, in long form: arm, seed, step, epoch, name, value."""
    parts = []
    for record in records:
        if record.folder is None or record.status not in ("FINISHED", "COLLAPSED"):
            continue
        rows = metrics_frame(record.folder.metrics).drop(columns="time")
        parts.append(rows.assign(arm=record.arm, seed=record.seed))
    columns = ["arm", "seed", "step", "epoch", "name", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
