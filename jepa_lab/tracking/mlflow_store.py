"""The connection to MLflow: import it quietly, make a SQLite store once, find or make experiment and run.

MLflow is imported here, inside functions, and only in the mirror process and in `sync`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_lab.tracking.credentials import scrub, with_credentials
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.uris import sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

_URLLIB3_DETAILS = re.compile(r"with exception HTTPS?ConnectionPool\(.*\(Caused by (.*)\)$")
RUN_UID_TAG = "jepa_lab.run_uid"
_STORE_LOCK_SECONDS = 120
# Set unless the user has set them. The mirror retries by itself, after asking what the tracker has; MLflow's
# own retries of a batch would not ask.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}


class TrackerAway(Exception):
    """The tracker did not do what it was asked; it may later. The message holds no credentials."""


@contextlib.contextmanager
def tracker_calls() -> Iterator[None]:
    """Turn whatever MLflow, its database or its HTTP client raise within the block into `TrackerAway`."""
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise TrackerAway(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What went wrong in one line, without credentials and without the query that urllib3 repeats."""
    first = (scrub(str(error)).splitlines() or [""])[0]
    return _URLLIB3_DETAILS.sub(r"(\1)", first)[:500] or type(error).__name__


def quiet_mlflow() -> None:
    """Import MLflow with its chatter (alembic's migrations above all) switched off."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401 - it sets up its loggers on import, and would undo what follows

    for logger in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(logger).setLevel(logging.WARNING)


def connect(settings: TrackerSettings) -> MlflowClient:
    """A client of the tracker, whose SQLite store exists when this returns.

    Raises:
        TrackerAway: if the store cannot be opened.
        RunFolderError: if another process has been making the store for minutes.
    """
    quiet_mlflow()
    from mlflow import MlflowClient

    uri = with_credentials(settings.uri)
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
                return str(client.create_experiment(settings.experiment, settings.artifact_location))
            except MlflowException as error:
                found = client.get_experiment_by_name(settings.experiment)
                if found is None:
                    raise error
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise TrackerAway(
                f"the experiment {settings.experiment!r} was deleted in MLflow; restore it there (`mlflow "
                f"experiments restore --experiment-id {found.experiment_id}`) or set tracking.experiment"
            )
        return str(found.experiment_id)


def find_or_create_run(
    client: MlflowClient, experiment_id: str, description: RunDescription, run_name: str
) -> tuple[str, bool]:
    """The id of the MLflow run of this run folder, and whether it was made just now.

    It is found by its `run_uid`, because a mirror may have died between making it and noting its id.
    """
    with tracker_calls():
        query = f"tags.`{RUN_UID_TAG}` = '{description.run_uid}'"
        found = client.search_runs([experiment_id], filter_string=query, max_results=1)
        if found:
            return str(found[0].info.run_id), False
        made = client.create_run(
            experiment_id,
            start_time=int(description.started * 1000),
            tags={RUN_UID_TAG: description.run_uid},
            run_name=run_name,
        )
        return str(made.info.run_id), True
