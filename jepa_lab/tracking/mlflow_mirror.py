"""What the mirror sends of a run folder, and how it sends each thing once, however often it is killed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.mirror_cursor import artifact_digests, load_cursor, unsent_rows
from jepa_lab.tracking.mlflow_names import MAX_METRICS_PER_BATCH
from jepa_lab.tracking.mlflow_records import log_dataset, log_model, log_params_and_tags
from jepa_lab.tracking.mlflow_store import (
    TrackerAway,
    connect,
    find_or_create_experiment,
    find_or_create_run,
    tracker_calls,
)
from jepa_lab.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_log = logging.getLogger("jepa_lab.mirror")


class Mirror:
    """Brings the MLflow record of one run folder up to date, a `push` at a time.

    Only the holder of the folder's mirror lock may use it.

    Args:
        folder: a run folder with `run.json`.
    Raises:
        ConfigError: if the run is not mirrored. RunFolderError: if `run.json` is missing or damaged.
    """

    def __init__(self, folder: RunFolder) -> None:
        description = folder.read_description()
        if description.tracker is None:
            raise ConfigError(f"{folder.path} was run with `tracking: none`; there is no record to complete")
        self.folder = folder
        self.description = description
        self.settings = description.tracker
        self.cursor = load_cursor(folder, self.settings)
        self._client: MlflowClient | None = None
        # Steps that the tracker has, by metric, of the metrics that were asked about. A batch may have
        # arrived without our knowing (a crash or a timeout before the acknowledgement), so each metric is
        # asked about once before it is first sent, and again after every failure.
        self._on_server: dict[str, set[int]] = {}
        self._run_is_new = False

    def push(self, ended: bool) -> None:
        """Send everything that the tracker lacks.

        Args:
            ended: no process writes the folder any more: send figures, weights and the final status too.
        Raises:
            TrackerAway: if the tracker failed; what was acknowledged is noted; `push` may be called again.
            RunFolderError: if a file of the run is damaged.
        """
        try:
            client = self._connect()
            result = self.folder.read_result() if ended else None
            self._send_description(client, None if result is None else result["status"])
            self._send_metrics(client)
            if ended:
                self._finish(client, result)
            if self.cursor.error is not None:
                self.cursor.error = None
                self.cursor.save(self.folder)
        except TrackerAway:
            self._on_server.clear()
            self._run_is_new = False
            raise

    def note_error(self, error: Exception) -> None:
        """Keep the reason of a failure where `mirror_state` finds it."""
        _log.warning("%s", error)
        self.cursor.error = str(error)
        self.cursor.save(self.folder)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            self._client = connect(self.settings)
        if self.cursor.run_id is None:
            self.cursor.experiment_id = find_or_create_experiment(self._client, self.settings)
            self.cursor.run_id, self._run_is_new = find_or_create_run(
                self._client,
                self.cursor.experiment_id,
                self.description,
                self.settings.run_name or self.folder.name,
            )
            self.cursor.save(self.folder)
        return self._client

    @property
    def _run_id(self) -> str:
        assert self.cursor.run_id is not None, "connected first"
        return self.cursor.run_id

    def _send_description(self, client: MlflowClient, status: str | None) -> None:
        """Params, tags, data set and config, once; and that the run is going on again, if it is."""
        if status is None and self.cursor.status is not None:
            with tracker_calls():
                client.update_run(self._run_id, status="RUNNING")
            self.cursor.status = None
            self.cursor.save(self.folder)
        if self.cursor.described:
            return
        with tracker_calls():
            log_params_and_tags(client, self._run_id, self.description, self.folder.path)
            log_dataset(client, self._run_id, self.description.dataset)
        self._send_artifacts(client, only_at_start=True)
        self.cursor.described = True
        self.cursor.save(self.folder)

    def _send_metrics(self, client: MlflowClient) -> None:
        """The rows behind the cursor, in batches that end with a row."""
        batch: list[Metric] = []
        line, end = b"", 0
        for next_line, next_end, row in unsent_rows(self.folder, self.cursor):
            metrics = self._to_send(client, row.step, row.metrics, row.time)
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

    def _to_send(
        self, client: MlflowClient, step: int, metrics: dict[str, float | None], seconds: float
    ) -> list[Metric]:
        """The metrics of a step that the tracker does not have yet."""
        from mlflow.entities import Metric

        unsent = self.cursor.unsent(step, metrics)
        if not self._run_is_new:
            unsent = {name: value for name, value in unsent.items() if step not in self._known(client, name)}
        return [Metric(name, float(value), int(seconds * 1000), step) for name, value in unsent.items()]

    def _known(self, client: MlflowClient, name: str) -> set[int]:
        """The steps at which the tracker has a metric."""
        if name not in self._on_server:
            with tracker_calls():
                history = client.get_metric_history(self._run_id, name)
            self._on_server[name] = {metric.step for metric in history}
        return self._on_server[name]

    def _send_batch(self, client: MlflowClient, batch: list[Metric]) -> None:
        """Log metrics, and remember in the cursor (not yet on disk) that they are there."""
        with tracker_calls():
            for start in range(0, len(batch), MAX_METRICS_PER_BATCH):  # more than one if a single row is huge
                client.log_batch(self._run_id, metrics=batch[start : start + MAX_METRICS_PER_BATCH])
        for metric in batch:
            self.cursor.last_steps[metric.key] = metric.step

    def _finish(self, client: MlflowClient, result: dict[str, Any] | None) -> None:
        """What is known only when no more rows come: summary, figures, weights, status."""
        if result is not None:
            metrics = {name: None if value is None else float(value) for name, value in result["metrics"].items()}
            self._send_batch(client, self._to_send(client, result["last_step"], metrics, result["ended"]))
            self.cursor.save(self.folder)
        self._send_artifacts(client, only_at_start=False)
        if result is None:
            return
        if result["final_checkpoint"] not in (None, self.cursor.model):
            checkpoint = result["final_checkpoint"]
            with tracker_calls():
                log_model(client, self._run_id, self.folder, checkpoint, result["last_step"])
            self.cursor.model = checkpoint
            self.cursor.save(self.folder)
        if self.cursor.status != result["status"]:
            with tracker_calls():
                client.set_terminated(self._run_id, result["status"], int(result["ended"] * 1000))
            self.cursor.status = result["status"]
            self.cursor.save(self.folder)

    def _send_artifacts(self, client: MlflowClient, only_at_start: bool) -> None:
        """Upload the files that are new or changed; the same name replaces what was there."""
        at_start = {self.folder.config.name, self.folder.environment.name}
        for name, digest in artifact_digests(self.folder).items():
            if self.cursor.artifacts.get(name) == digest or (only_at_start and name not in at_start):
                continue
            parent = Path(name).parent.as_posix()
            with tracker_calls():
                client.log_artifact(self._run_id, str(self.folder.path / name), None if parent == "." else parent)
            self.cursor.artifacts[name] = digest
            self.cursor.save(self.folder)
