"""Brings the files of a logged model from MLflow: `models:/...` of its id, version or alias, or `runs:/RUN_ID`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.credentials import server_credentials, with_credentials
from jepa_lab.tracking.mlflow_calls import TrackerAway, tracker_calls
from jepa_lab.tracking.mlflow_store import quiet_mlflow
from jepa_lab.tracking.store_choice import choose_store
from jepa_lab.tracking.uris import sqlite_path, uri_for_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SCHEMES = ("runs:/", "models:/")
_RUN = re.compile(r"runs:/([0-9a-f]{32})/?")
_LOGGED = re.compile(r"models:/(m-[0-9a-f]{32})")
_VERSION = re.compile(r"models:/([^/@]+)/(\d+)")
_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")


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

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    location = _location(client, model_uri)
    return Path(download_artifacts(artifact_uri=location, dst_path=str(folder), tracking_uri=uri, registry_uri=uri))


def _location(client: MlflowClient, model_uri: str) -> str:
    """Where the files of a logged model are, found in this client's store: MLflow itself would ask its default one.

    Raises:
        ConfigError: the run has logged no model, or the URI has another form.
    """
    if (run := _RUN.fullmatch(model_uri)) is not None:
        outputs = client.get_run(run[1]).outputs
        models = [] if outputs is None else outputs.model_outputs
        if not models:
            raise ConfigError(f"{model_uri} has logged no model; is the run finished?")
        return _location(client, f"models:/{max(models, key=lambda model: model.step).model_id}")
    if (logged := _LOGGED.fullmatch(model_uri)) is not None:
        return str(client.get_logged_model(logged[1]).artifact_location)
    if (version := _VERSION.fullmatch(model_uri)) is not None:
        return _registered(client, client.get_model_version(version[1], version[2]))
    if (alias := _ALIAS.fullmatch(model_uri)) is not None:
        return _registered(client, client.get_model_version_by_alias(alias[1], alias[2]))
    raise ConfigError(f"{model_uri} must be models:/m-ID, models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID")


def _registered(client: MlflowClient, version: ModelVersion) -> str:
    """A version is registered from a logged model, or from a folder of artifacts."""
    source = str(version.source)
    return _location(client, source) if _LOGGED.fullmatch(source) else source
