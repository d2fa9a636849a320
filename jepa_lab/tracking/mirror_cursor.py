"""How far the mirror is: `mirror.json`, written after the tracker acknowledged.

It only saves work. Without it the mirror finds the run again by its `run_uid` and asks the tracker up to which
steps it has each metric, so a lost or damaged file costs time, not rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.base import MirrorState
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.metrics import MetricsRow, iter_lines, parse_row
from jepa_lab.tracking.mlflow_names import legal_name
from jepa_lab.tracking.records import read_record, write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.sweep_note import note_digest, sweep_note
from jepa_lab.tracking.uris import absolute_uri

KIND = "mirror"
VERSION = 1
_PLAN = "plan.json"
_log = logging.getLogger("jepa_lab.mirror")


@dataclass
class MirrorCursor:
    """What the tracker has acknowledged.

    Attributes:
        uri, experiment: the tracker that this is about. run_uid: the run, as in `run.json`.
        parent_run_id: the MLflow run of the sweep that the run was made a child of.
        described: parameters, tags and data set are there.
        offset: byte position in `metrics.jsonl` behind the last acknowledged row.
        row_bytes, row_sha256: length and digest of that row; if they do not fit, the file was cut back.
        last_steps: last acknowledged step of each metric.
        artifacts: SHA-256 of each uploaded file by its path in the run folder.
        model: the checkpoint (path in the run folder) that was logged as a model.
        note: digest of the description that a sweep's run shows.
        status: how the run ended, as the tracker knows it; None while it runs there.
        error: why the last attempt failed.
    """

    uri: str
    experiment: str
    run_uid: str = ""
    experiment_id: str | None = None
    run_id: str | None = None
    parent_run_id: str | None = None
    described: bool = False
    offset: int = 0
    row_bytes: int = 0
    row_sha256: str = ""
    last_steps: dict[str, int] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    note: str | None = None
    status: str | None = None
    error: str | None = None

    def acknowledge(self, line: bytes, end: int) -> None:
        """The row `line`, which ends at byte `end`, and all before it are there."""
        self.offset, self.row_bytes = end, len(line)
        self.row_sha256 = hashlib.sha256(line).hexdigest()

    def learn(self, status: str | None, last_steps: Mapping[str, int]) -> None:
        """The tracker itself said what it has.

        It may have more than was acknowledged (the answer was lost on the way), or less (its store was put back
        to an older copy): then everything is compared with it again.
        """
        if any(last_steps.get(name, -1) < step for name, step in self.last_steps.items()):
            _log.warning("the tracker lacks rows that it had acknowledged; sending again what it lacks")
            self.offset, self.row_bytes, self.row_sha256 = 0, 0, ""
            self._forget_files()
        elif self.status not in (None, status):
            _log.warning("the tracker has forgotten how the run ended; comparing its files again")
            self._forget_files()
        self.status, self.last_steps = status, dict(last_steps)

    def _forget_files(self) -> None:
        """Send what is not rows again; each of it replaces what is there."""
        self.parent_run_id, self.described, self.artifacts, self.model = None, False, {}, None
        self.note = None

    def fits(self, folder: RunFolder) -> bool:
        """Whether the last acknowledged row is still where it was."""
        if self.offset == 0 or not folder.metrics.exists():
            return self.offset == 0
        with open(folder.metrics, "rb") as file:
            line = os.pread(file.fileno(), self.row_bytes, self.offset - self.row_bytes)
        return hashlib.sha256(line).hexdigest() == self.row_sha256

    def unsent(self, step: int, metrics: dict[str, float | None]) -> dict[str, float]:
        """The metrics of a step that were not acknowledged, under their legal names; nulls are left out."""
        legal = {legal_name(name): value for name, value in metrics.items()}
        return {
            name: value for name, value in legal.items() if value is not None and step > self.last_steps.get(name, -1)
        }

    def save(self, folder: RunFolder) -> None:
        """Write `mirror.json` durably."""
        write_record(folder.mirror, KIND, VERSION, dataclasses.asdict(self))


def new_cursor(description: RunDescription) -> MirrorCursor:
    """The cursor of a run of which the tracker has nothing."""
    settings = description.tracker
    assert settings is not None, "asked for mirrored runs alone"
    return MirrorCursor(settings.uri, settings.experiment, description.run_uid)


def load_cursor(folder: RunFolder, description: RunDescription) -> MirrorCursor:
    """The cursor of this run and tracker; a new one where there is none that can be used."""
    new = new_cursor(description)
    if not folder.mirror.exists():
        return new
    try:
        cursor = MirrorCursor(**read_record(folder.mirror, KIND, VERSION))
    except (RunFolderError, TypeError) as error:
        _log.warning("asking the tracker what it has, because of: %s", error)
        return new
    if cursor.uri != new.uri:  # it may have been written before URIs were percent-encoded
        cursor.uri = absolute_uri(cursor.uri)
    return cursor if (cursor.uri, cursor.experiment, cursor.run_uid) == (new.uri, new.experiment, new.run_uid) else new


def unsent_rows(folder: RunFolder, cursor: MirrorCursor) -> Iterator[tuple[bytes, int, MetricsRow]]:
    """The lines of `metrics.jsonl` behind the cursor: line, byte position behind it, row.

    After a cut back (the run went on from an older checkpoint) it begins at the first row: `cursor.unsent`
    then tells which steps are new.

    Raises:
        RunFolderError: if a row is damaged.
    """
    start = cursor.offset if cursor.fits(folder) else 0
    for line, end in iter_lines(folder.metrics, start):
        yield line, end, parse_row(line, folder.metrics, end)


def final_status(result: Mapping[str, Any] | None) -> str:
    """How a run that is not going on ended: KILLED if it did not live to write `result.json`."""
    return "KILLED" if result is None else str(result["status"])


def artifact_digests(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of each file that is mirrored as an artifact, by its path in the run folder."""
    single = [folder.config, folder.environment, folder.result, folder.path / _PLAN]
    parts = (folder.figures, folder.path / "report")
    figures = sorted(path for part in parts for path in part.rglob("*") if not path.name.startswith("."))
    return {
        path.relative_to(folder.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*single, *figures]
        if path.is_file()
    }


def is_sweep(folder: RunFolder) -> bool:
    """Whether the record is that of a sweep, with trials below it."""
    return (folder.path / _PLAN).is_file()


def sweep_of(folder: RunFolder) -> RunFolder | None:
    """The sweep that a run is a trial of; None for a run of its own."""
    trials = folder.path.resolve().parent
    return RunFolder(trials.parent) if trials.name == "trials" and (trials.parent / _PLAN).is_file() else None


def trials_of(folder: RunFolder) -> Iterator[RunFolder]:
    """The run folders of a sweep's trials that have begun."""
    for path in sorted((folder.path / "trials").glob("*")):
        if not path.name.startswith(".") and (path / "run.json").is_file():
            yield RunFolder(path)


def mlflow_run_id(folder: RunFolder) -> str | None:
    """The id of the MLflow run of a run folder; None where there is none that is known."""
    try:
        description = folder.read_description()
    except RunFolderError:  # told where the folder is read for its content
        return None
    return None if description.tracker is None else load_cursor(folder, description).run_id


def follows(trial: TrackerSettings, sweep: TrackerSettings | None) -> bool:
    """Whether a trial's record is beside that of its sweep; one that was resumed alone may have gone elsewhere."""
    return sweep is not None and (trial.uri, trial.experiment) == (sweep.uri, sweep.experiment)


def mirror_state(folder: RunFolder) -> MirrorState:
    """How far the tracker's copy of a run, or of a sweep with its trials, is by the files alone.

    MLflow is neither imported nor asked.

    Raises:
        RunFolderError: if `run.json`, `result.json` or a row of the metrics is damaged; a sweep's trial that is
            damaged is told in the state, because it keeps nothing else from being complete.
    """
    if not is_sweep(folder):
        return _record_state(folder)
    of_sweep, run_id = folder.read_description().tracker, mlflow_run_id(folder)  # once, not for each trial
    states = [_record_state(folder), *(_trial_state(trial, of_sweep, run_id) for trial in trials_of(folder))]
    return MirrorState(
        sum(state.rows_behind for state in states),
        tuple(dict.fromkeys(name for state in states for name in state.pending)),
        next((state.error for state in states if state.error is not None), None),
        place=states[0].place,
    )


def _trial_state(trial: RunFolder, of_sweep: TrackerSettings | None, run_id: str | None) -> MirrorState:
    """The state of a trial's record, and of its link to the sweep's, whose MLflow run has that id."""
    try:
        state, own = _record_state(trial), trial.read_description()
    except RunFolderError as error:
        return MirrorState(pending=("damaged trials",), error=str(error))
    if own.tracker is None or not follows(own.tracker, of_sweep):
        return state
    linked = load_cursor(trial, own).parent_run_id == run_id is not None
    return state if linked else dataclasses.replace(state, pending=(*state.pending, "links to the sweep"))


def _record_state(folder: RunFolder) -> MirrorState:
    """The state of one record.

    Raises:
        RunFolderError: if `run.json`, `result.json` or a row of the metrics is damaged.
    """
    description = folder.read_description()
    if description.tracker is None:
        return MirrorState()
    cursor, result = load_cursor(folder, description), folder.read_result()
    behind = sum(bool(cursor.unsent(row.step, row.metrics)) for _, _, row in unsent_rows(folder, cursor))
    missing = {
        "parameters": not cursor.described,
        # The tracker may keep more: result.json of an attempt that ended, and from which the run went on.
        "artifacts": not artifact_digests(folder).items() <= cursor.artifacts.items(),
    }
    if result is not None:
        checkpoint = result["final_checkpoint"]
        missing["summary metrics"] = bool(cursor.unsent(result["last_step"], result["metrics"]))
        missing["description"] = cursor.note != note_digest(sweep_note(folder))
        missing["model"] = checkpoint is not None and cursor.model != checkpoint
    missing["status"] = cursor.status != final_status(result)
    pending = tuple(name for name, lacks in missing.items() if lacks)
    return MirrorState(behind, pending, cursor.error, place=description.tracker.in_words())
