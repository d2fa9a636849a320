"""What the mirror sends of a run folder, and how it sends each thing once, however often it is killed."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.tracking.credentials import server_credentials, with_credentials
from jepa_lab.tracking.description import record_name
from jepa_lab.tracking.metrics import iter_lines, parse_row
from jepa_lab.tracking.mirror_cursor import artifact_digests, final_status, load_cursor, new_cursor, unsent_rows
from jepa_lab.tracking.mlflow_calls import RunUnknown, TrackerAway, tracker_calls
from jepa_lab.tracking.mlflow_names import MAX_METRICS_PER_BATCH, legal_tags
from jepa_lab.tracking.mlflow_records import check_stored, log_dataset, log_model, log_params_and_tags, weights_size
from jepa_lab.tracking.mlflow_store import (
    connect,
    delete_twins,
    find_or_create_experiment,
    find_or_create_run,
    read_run,
)
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.sweep_note import NOTE_TAG, note_digest, sweep_note

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

PARENT_TAG = "mlflow.parentRunId"
_log = logging.getLogger("jepa_lab.mirror")


class Mirror:
    """Brings the MLflow record of one run folder up to date, a `push` at a time.

    Only the holder of the folder's mirror lock may use it.

    Args:
        folder: a run folder with `run.json`.
        parent: the mirror of the sweep that the run is a trial of, for the same tracker; None for a run of its own.
    Raises:
        ConfigError: if the run is not mirrored. RunFolderError: if `run.json` is missing or damaged.
    """

    def __init__(self, folder: RunFolder, parent: Mirror | None = None) -> None:
        description = folder.read_description()
        if description.tracker is None:
            raise ConfigError(f"{folder.path} was run with `tracking: none`; there is no record to complete")
        self.folder = folder
        self.parent = parent
        self.description = description
        self.settings = description.tracker
        self.cursor = load_cursor(folder, description)
        self._client: MlflowClient | None = None
        # Whether the cursor holds what the tracker says that it has. A batch may have arrived without our
        # knowing (a crash or a timeout before the acknowledgement), so the tracker is asked before anything is
        # sent, and again after every failure.
        self._asked = False

    def push(self, ended: bool) -> None:
        """Send everything that the tracker lacks.

        Args:
            ended: no process writes the folder any more: send figures, weights and the final status too. A run
                that did not write `result.json` was killed.
        Raises:
            TrackerAway: if the tracker failed; what was acknowledged is noted; `push` may be called again.
            RunFolderError: if a file of the run is damaged.
        """
        try:
            with self._credentials():
                self._send(ended)
        except TrackerAway:
            self._asked = False
            raise

    def _credentials(self) -> contextlib.AbstractContextManager[None]:
        """What a block needs in which requests are sent."""
        return server_credentials(with_credentials(self.settings.uri))

    def _send(self, ended: bool) -> None:
        client = self._connect()
        if self.parent is not None:
            self._send_link(client, self.parent)
        self._send_description(client, running=not ended)
        self._send_metrics(client)
        if ended:
            self._finish(client, self.folder.read_result())
        if self.cursor.error is not None:
            self.cursor.error = None
            self.cursor.save(self.folder)

    def note_error(self, error: Exception) -> None:
        """Keep the reason of a failure where `mirror_state` finds it."""
        _log.warning("%s", error)
        self.cursor.error = str(error)
        try:
            self.cursor.save(self.folder)
        except RunStopped as full:  # the disk may have space again before the run ends
            _log.warning("%s", full)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            self._client = connect(self.settings) if self.parent is None else self.parent._connect()
        try:
            self._find_run(self._client)
        except RunUnknown as error:
            _log.warning("starting the record again, because the tracker answered: %s", error)
            self.cursor = new_cursor(self.description)
            self._find_run(self._client)
        return self._client

    def _find_run(self, client: MlflowClient) -> None:
        """Know the run's id, and what the tracker has of it."""
        if self.cursor.run_id is None:
            self.cursor.experiment_id = find_or_create_experiment(client, self.settings)
            self.cursor.run_id = find_or_create_run(
                client, self.cursor.experiment_id, self.description, record_name(self.description, self.folder.name)
            )
            self.cursor.save(self.folder)
        if not self._asked:
            server = read_run(client, self.cursor.run_id)
            self.cursor.learn(server.status, server.last_steps)
            self._asked = True

    @property
    def _run_id(self) -> str:
        assert self.cursor.run_id is not None, "connected first"
        return self.cursor.run_id

    def connected_run_id(self) -> str:
        """The id of the MLflow run, which is made if it is not there.

        Raises:
            TrackerAway: if the tracker failed.
        """
        with self._credentials():
            self._connect()
        return self._run_id

    def _send_link(self, client: MlflowClient, parent: Mirror) -> None:
        """Make the MLflow run a child of the sweep's, which may be another one than before."""
        parent_run_id = parent.connected_run_id()
        if self.cursor.parent_run_id == parent_run_id:
            return
        with tracker_calls():
            client.set_tag(self._run_id, PARENT_TAG, parent_run_id)
        if PARENT_TAG not in read_run(client, self._run_id).names:
            raise TrackerAway(f"the tracker acknowledged the tag {PARENT_TAG} and does not have it")
        self.cursor.parent_run_id = parent_run_id
        self.cursor.save(self.folder)

    def _send_description(self, client: MlflowClient, running: bool) -> None:
        """Params, tags, data set and config, once; and that the run is going on again, if it is."""
        if running and self.cursor.status is not None:
            with tracker_calls():
                client.update_run(self._run_id, status="RUNNING")
            self.cursor.status = None
            self.cursor.save(self.folder)
        if self.cursor.described:
            return
        with tracker_calls():
            sent = log_params_and_tags(client, self._run_id, self.description, self.folder.path)
            log_dataset(client, self._run_id, self.description.dataset)
        lost = sent - read_run(client, self._run_id).names
        if lost:
            raise TrackerAway(f"the tracker acknowledged parameters that it does not have: {', '.join(sorted(lost))}")
        self._send_artifacts(client, only_at_start=True)
        self.cursor.described = True
        self.cursor.save(self.folder)

    def _send_metrics(self, client: MlflowClient) -> None:
        """The rows after the cursor, in batches that end with a row."""
        batch: list[Metric] = []
        line, end = b"", 0
        for next_line, next_end, row in unsent_rows(self.folder, self.cursor):
            metrics = self._to_send(row.step, row.metrics, row.time)
            if batch and len(batch) + len(metrics) > MAX_METRICS_PER_BATCH:
                self._send_batch(client, batch)
                self.cursor.acknowledge(line, end)
                self.cursor.save(self.folder)
                batch = []
            batch += metrics
            line, end = next_line, next_end
        if end:
            self._send_batch(client, batch)
            self.cursor.acknowledge(line, end)
            self.cursor.save(self.folder)

    def _to_send(self, step: int, metrics: dict[str, float | None], seconds: float) -> list[Metric]:
        """The metrics of a step that the tracker does not have yet."""
        from mlflow.entities import Metric

        unsent = self.cursor.unsent(step, metrics)
        return [Metric(name, float(value), int(seconds * 1000), step) for name, value in unsent.items()]

    def _send_batch(self, client: MlflowClient, batch: list[Metric]) -> None:
        """Log metrics, see that they are there, and remember it in the cursor (not yet on disk).

        An acknowledgement alone may come from a proxy; a gap before later steps would never be noticed.
        """
        if not batch:
            return
        with tracker_calls():
            for start in range(0, len(batch), MAX_METRICS_PER_BATCH):  # more than one if a single row is huge
                client.log_batch(self._run_id, metrics=batch[start : start + MAX_METRICS_PER_BATCH])
        there = read_run(client, self._run_id).last_steps
        lost = {metric.key for metric in batch if there.get(metric.key, -1) < metric.step}
        if lost:
            raise TrackerAway(f"the tracker acknowledged metrics that it does not have: {', '.join(sorted(lost))}")
        for metric in batch:
            self.cursor.last_steps[metric.key] = metric.step

    def _finish(self, client: MlflowClient, result: dict[str, Any] | None) -> None:
        """What is known only when no more rows come: summary, figures, weights, status."""
        if result is not None:
            metrics = {name: None if value is None else float(value) for name, value in result["metrics"].items()}
            self._send_batch(client, self._to_send(result["last_step"], metrics, result["ended"]))
            self.cursor.save(self.folder)
        self._send_artifacts(client, only_at_start=False)
        self._send_note(client)
        if result is not None and result["final_checkpoint"] not in (None, self.cursor.model):
            checkpoint = result["final_checkpoint"]
            with tracker_calls(weights_size(self.folder, checkpoint)):
                log_model(client, self._run_id, self.folder, result)
            self.cursor.model = checkpoint
            self.cursor.save(self.folder)
        assert self.cursor.experiment_id is not None, "noted with the run's id"
        delete_twins(client, self.cursor.experiment_id, self.description, self._run_id)
        self._send_findings(client, {} if result is None else result.get("tags", {}))
        self._send_status(
            client, final_status(result), self._last_sign_of_life() if result is None else result["ended"]
        )

    def _send_note(self, client: MlflowClient) -> None:
        """The table of a sweep, as the description of its run."""
        note = sweep_note(self.folder)
        digest = note_digest(note)
        if note is None or self.cursor.note == digest:
            return
        self._set_tags(client, {NOTE_TAG: note})
        self.cursor.note = digest
        self.cursor.save(self.folder)

    def _send_findings(self, client: MlflowClient, tags: Mapping[str, str]) -> None:
        """What was found, in words; it is in result.json, which the status comes with."""
        if tags and self.cursor.status is None:
            self._set_tags(client, legal_tags(tags))

    def _set_tags(self, client: MlflowClient, tags: Mapping[str, str]) -> None:
        """Set tags, and see that they are there."""
        from mlflow.entities import RunTag

        with tracker_calls():
            client.log_batch(self._run_id, tags=[RunTag(name, text) for name, text in tags.items()])
        lost = set(tags) - read_run(client, self._run_id).names
        if lost:
            raise TrackerAway(f"the tracker acknowledged tags that it does not have: {', '.join(sorted(lost))}")

    def _send_status(self, client: MlflowClient, status: str, seconds: float) -> None:
        """How the run ended, at that Unix time."""
        if self.cursor.status == status:
            return
        # MLflow prints the addresses of its pages here; what a command prints is ours to say.
        with tracker_calls(), contextlib.redirect_stdout(io.StringIO()):
            client.set_terminated(self._run_id, status, int(seconds * 1000))
        if read_run(client, self._run_id).status != status:
            raise TrackerAway(f"the tracker acknowledged the status {status} and shows another one")
        self.cursor.status = status
        self.cursor.save(self.folder)

    def _last_sign_of_life(self) -> float:
        """Unix time of the last row, or of the start, of a run that was killed."""
        last = self.description.started
        for line, end in iter_lines(self.folder.metrics):
            last = parse_row(line, self.folder.metrics, end).time
        return last

    def _send_artifacts(self, client: MlflowClient, only_at_start: bool) -> None:
        """Upload the files that are new or changed; the same name replaces what was there."""
        at_start = {self.folder.config.name, self.folder.environment.name}
        for name, digest in artifact_digests(self.folder).items():
            if self.cursor.artifacts.get(name) == digest or (only_at_start and name not in at_start):
                continue
            file, parent = self.folder.path / name, Path(name).parent.as_posix()
            place = None if parent == "." else parent
            with tracker_calls(file.stat().st_size):
                client.log_artifact(self._run_id, str(file), place)
                check_stored(client.list_artifacts(self._run_id, place), file)
            self.cursor.artifacts[name] = digest
            self.cursor.save(self.folder)
