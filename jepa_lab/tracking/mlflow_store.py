"""The connection to MLflow: import it quietly, make a SQLite store once, find or make experiment and run.

MLflow is imported here, inside functions, and only in the mirror process and in `sync`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_lab.tracking.credentials import connection_uri, with_credentials
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.mlflow_calls import RunDeleted, TrackerAway, tracker_calls
from jepa_lab.tracking.mlflow_names import MAX_NAME, cut_value
from jepa_lab.tracking.uris import sqlite_path, uri_for_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_UID_TAG = "jepa_lab.run_uid"
_STORE_LOCK_SECONDS = 120
# Set unless the user has set them. The mirror retries by itself, after asking what the tracker has; MLflow's
# own retries of a batch would not ask. A redirected POST would arrive as a GET, so redirects are errors.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# Set whatever the user has set. What was sent is looked for at once, and asynchronous logging has not sent it.
FIXED = {"MLFLOW_ENABLE_ASYNC_LOGGING": "false"}


def quiet_mlflow() -> None:
    """Import MLflow with its chatter (alembic's migrations above all) switched off."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(FIXED)
    try:
        Path.home()
    except RuntimeError:  # a user whom the system does not know, as in containers; MLflow's import would fail
        os.environ["HOME"] = os.sep  # as containers set it
    import mlflow  # noqa: F401 - it sets up its loggers on import, and would undo what follows

    chosen = {"mlflow"} if os.environ.get("MLFLOW_LOGGING_LEVEL") else set()
    for logger in {"mlflow", "alembic", "sqlalchemy"} - chosen:
        logging.getLogger(logger).setLevel(logging.WARNING)


def connect(settings: TrackerSettings) -> MlflowClient:
    """A client of the tracker, whose SQLite store exists when this returns; used within `server_credentials`.

    Raises:
        TrackerAway: if the store cannot be opened.
        RunFolderError: if another process has been making the store for minutes.
    """
    quiet_mlflow()
    from mlflow import MlflowClient

    uri = uri_for_mlflow(connection_uri(with_credentials(settings.uri)))
    with tracker_calls():
        database = sqlite_path(settings.uri)
        if database is None:
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        database.parent.mkdir(parents=True, exist_ok=True)
        # Several processes that make a fresh store at once crash each other.
        with FileLock(database.with_name(database.name + ".lock"), f"the store {database}") as lock:
            lock.acquire(_STORE_LOCK_SECONDS)
            _use_write_ahead_log(database)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            client.get_experiment_by_name(settings.experiment)  # makes and migrates the tables
            return client


def _use_write_ahead_log(database: Path) -> None:
    """Let readers (the UI) and a writer work at the same time; the mode stays with the file."""
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def find_or_create_experiment(client: MlflowClient, settings: TrackerSettings) -> str:
    """The experiment's id; another process may make it at the same moment.

    Raises:
        TrackerAway: if MLflow refuses, for instance because the experiment was deleted.
    """
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException

    with tracker_calls():
        found = client.get_experiment_by_name(settings.experiment)
        if found is None:
            try:
                made = client.create_experiment(settings.experiment, settings.artifact_location)
                return _stated(made, "an experiment")
            except MlflowException as error:
                found = client.get_experiment_by_name(settings.experiment)
                if found is None:
                    raise error
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise TrackerAway(
                f"the experiment {settings.experiment!r} was deleted in MLflow; restore it there (`mlflow "
                f"experiments restore --experiment-id {found.experiment_id}`) or set tracking.experiment"
            )
        return _stated(found.experiment_id, "an experiment")


def find_or_create_run(client: MlflowClient, experiment_id: str, description: RunDescription, run_name: str) -> str:
    """The id of the MLflow run of this run folder.

    It is found by its `run_uid`, because a mirror may have died between making it and noting its id.
    """
    found = _runs_of(client, experiment_id, description)
    if found:
        return found[0]
    with tracker_calls():
        made = client.create_run(
            experiment_id,
            start_time=int(description.started * 1000),
            tags={RUN_UID_TAG: description.run_uid},
            run_name=cut_value(run_name, MAX_NAME),
        )
    return _stated(made.info.run_id, "a run")


def delete_twins(client: MlflowClient, experiment_id: str, description: RunDescription, run_id: str) -> None:
    """Delete empty second MLflow runs of the same run folder.

    A request to make the run that was given up as too slow may have been carried out after the run had been
    made by another request; what it made holds nothing.
    """
    for twin in _runs_of(client, experiment_id, description):
        with tracker_calls():
            if twin != run_id and not client.get_run(twin).data.metrics:
                client.delete_run(twin)


def _runs_of(client: MlflowClient, experiment_id: str, description: RunDescription) -> list[str]:
    """Ids of the MLflow runs of this run folder, without deleted ones where there is another."""
    from mlflow.entities import LifecycleStage, ViewType

    query = f"tags.`{RUN_UID_TAG}` = '{description.run_uid}'"
    with tracker_calls():
        found = client.search_runs([experiment_id], filter_string=query, run_view_type=ViewType.ALL)
    active = [run.info.run_id for run in found if run.info.lifecycle_stage == LifecycleStage.ACTIVE]
    return active or [run.info.run_id for run in found]


@dataclass(frozen=True)
class ServerRun:
    """What the tracker itself says about a run.

    Attributes:
        status: how it ended; None while it runs.
        last_steps: step of the latest value of each metric; the mirror sends steps in order, so the tracker has
            all before it too.
        names: of its params and tags.
    """

    status: str | None
    last_steps: Mapping[str, int]
    names: frozenset[str]


def read_run(client: MlflowClient, run_id: str) -> ServerRun:
    """Ask the tracker what it has of a run: one request, whose size does not grow with the number of steps.

    Raises:
        RunUnknown: if the tracker says that it has no such run.
        RunDeleted: if the run was deleted in MLflow.
        TrackerAway: if it does not answer, or answers nonsense.
    """
    from mlflow.entities import LifecycleStage

    with tracker_calls():
        run = client.get_run(run_id)
        if run.info.run_id != run_id:
            raise TrackerAway("the tracker's answer is not one of MLflow; is something else at this address?")
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise RunDeleted(
                f"the run {run_id} was deleted in MLflow; restore it there (`mlflow runs restore --run-id {run_id}`)"
            )
        latest = run.to_proto().data.metrics  # with their steps, which `run.data.metrics` leaves out
    ended = run.info.status in ("FINISHED", "FAILED", "KILLED")
    return ServerRun(
        status=run.info.status if ended else None,
        last_steps={metric.key: metric.step for metric in latest},
        names=frozenset(run.data.params) | frozenset(run.data.tags),
    )


def _stated(identifier: object, what: str) -> str:
    """An id that the tracker gave to what it made.

    Raises:
        TrackerAway: if it gave none: something else than MLflow answered.
    """
    if not identifier:
        raise TrackerAway(f"the answer to a request for {what} is not one of MLflow; what is at this address?")
    return str(identifier)
