"""Brings the files of a logged model from MLflow: `models:/NAME/VERSION`, `models:/m-...`, or `runs:/RUN_ID`."""

from __future__ import annotations

import re
from pathlib import Path

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.credentials import server_credentials, with_credentials
from jepa_lab.tracking.mlflow_calls import TrackerAway, tracker_calls
from jepa_lab.tracking.mlflow_store import quiet_mlflow
from jepa_lab.tracking.store_choice import choose_store
from jepa_lab.tracking.uris import sqlite_path, uri_for_mlflow

SCHEMES = ("runs:/", "models:/")
_RUN = re.compile(r"runs:/([0-9a-f]{32})/?")


def download_model(model_uri: str, uri: str | None, folder: Path) -> Path:
    """Download a logged model.

    Args:
        model_uri: a run stands for the model that it logged last.
        uri: tracking URI; None for the usual one.
        folder: an existing one.
    Returns:
        The folder of its files.
    Raises:
        ConfigError: there is no such model, or the store cannot be read.
    """
    store = choose_store(uri, "--uri", None)
    database = sqlite_path(store.value)
    if database is not None and not database.is_file():
        raise ConfigError(f"{model_uri}: there is no tracking store {store.shown}; --uri names another one")
    quiet_mlflow()
    try:
        with server_credentials(with_credentials(store.value)), tracker_calls():
            return _download(model_uri, uri_for_mlflow(store.value), folder)
    except TrackerAway as error:
        raise ConfigError(
            f"{model_uri} cannot be read from {store.shown} ({error}); is it the right store (--uri names another one)?"
        ) from error


def _download(model_uri: str, uri: str, folder: Path) -> Path:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    run = _RUN.fullmatch(model_uri)
    if run is not None:
        outputs = MlflowClient(tracking_uri=uri).get_run(run[1]).outputs
        models = [] if outputs is None else outputs.model_outputs
        if not models:
            raise ConfigError(f"{model_uri} has logged no model; is the run finished?")
        model_uri = f"models:/{max(models, key=lambda model: model.step).model_id}"
    return Path(download_artifacts(artifact_uri=model_uri, dst_path=str(folder), tracking_uri=uri))
