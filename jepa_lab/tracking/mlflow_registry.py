"""`jepa-lab register`: the encoder of a finished run under a name in MLflow's registry of models."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jepa_lab.errors import ConfigError, RunFolderError, TrackerUnreachable
from jepa_lab.tracking.credentials import STORE_VARIABLE, connection_uri, server_credentials, with_credentials
from jepa_lab.tracking.mirror import sync
from jepa_lab.tracking.mirror_cursor import load_cursor
from jepa_lab.tracking.mlflow_calls import TrackerAway, tracker_calls
from jepa_lab.tracking.mlflow_names import quoted
from jepa_lab.tracking.mlflow_records import find_models, log_model
from jepa_lab.tracking.mlflow_store import connect, quiet_mlflow
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.store_choice import is_store_without_option
from jepa_lab.tracking.uris import uri_for_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NO_REGISTRY = ("ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED")
_LONGEST_NAME = 256


@dataclass(frozen=True)
class RegisteredModel:
    """A version of a registered model.

    Attributes:
        folder: run folder whose encoder it is.
        uri: tracking URI of the store, without credentials.
        is_new: False where the same model had been registered under this name before.
    """

    folder: RunFolder
    name: str
    version: str
    uri: str
    is_new: bool

    @property
    def model_uri(self) -> str:
        """`models:/NAME/VERSION`."""
        return f"models:/{self.name}/{self.version}"

    def sentences(self) -> str:
        """What was registered, and how it is loaded, in Python, from the command line and as a server."""
        did = "registered the encoder of" if self.is_new else "already registered: the encoder of"
        elsewhere = not is_store_without_option(self.uri)
        before = f"{STORE_VARIABLE}={shlex.quote(self.uri)} " if elsewhere else ""
        option = f" --uri {shlex.quote(self.uri)}" if elsewhere else ""
        model = shlex.quote(self.model_uri)
        where = f" (after mlflow.set_tracking_uri({self.uri!r}))" if elsewhere else ""
        return (
            f"{did} {self.folder.path} as {self.model_uri} in {self.uri}\n"
            f"features in Python: mlflow.pyfunc.load_model({self.model_uri!r}).predict(images){where}, images uint8 "
            "[B, H, W, C]\n"
            f"as a server:        {before}mlflow models serve --model-uri {model} --env-manager local\n"
            f"probe it:           jepa-lab probe --encoder {model}{option} PIPELINE"
        )


def register_run(folder: RunFolder, name: str) -> RegisteredModel:
    """Register the encoder that a run's probe measured; what MLflow lacks of the run is sent before.

    Args:
        folder: a finished run.
        name: of the registered model, which is made if it is not there; a new version otherwise.
    Raises:
        ConfigError: the name is none, the run is not in MLflow, or its store has no registry.
        RunFolderError: the run is not finished.
        TrackerUnreachable: the store could not be reached, or failed.
    """
    _check_name(name)
    result = _finished_result(folder)
    description = folder.read_description()
    if description.tracker is None:
        raise ConfigError(
            f"{folder.path} was run with `tracking: none` and is not in MLflow, whose registry this is; run it with "
            "`tracking=mlflow`, or write its encoder with `jepa-lab export`"
        )
    uri = description.tracker.uri
    state = sync(folder.path)
    cursor = load_cursor(folder, description)
    if cursor.run_id is None or cursor.model != result["final_checkpoint"]:
        trouble = "is still being sent" if state.still_sending else "could not be sent"
        why = f" ({state.error})" if state.error else ""
        raise TrackerUnreachable(
            f"the model of {folder.path} {trouble} to {uri}{why}, so nothing was registered; run the same command "
            f"again {'in a moment' if state.still_sending else 'when the store can be reached'}"
        )
    quiet_mlflow()
    try:
        with server_credentials(with_credentials(uri)), _default_store(uri):
            client = connect(description.tracker)
            with tracker_calls():
                model_id = _loadable_model(client, cursor.run_id, folder, result)
                version, is_new = _version(client, name, cursor.run_id, model_id, folder)
    except TrackerAway as error:
        raise _explained(error, name, uri) from error
    return RegisteredModel(folder, name, version, uri, is_new)


def _check_name(name: str) -> None:
    """Raises:
    ConfigError: MLflow could not find a model of this name again.
    """
    if not name.strip() or set(name) & set("/:") or name in (".", "..") or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"--name must be 1 to {_LONGEST_NAME} characters without '/' and ':', which separate the parts of "
            f"models:/NAME/VERSION, got {name!r}"
        )
    quoted(name)  # by which its versions are looked for


def _finished_result(folder: RunFolder) -> dict[str, Any]:
    """Raises:
    RunFolderError: the run has no final encoder.
    """
    result = folder.read_result()
    status = "is not finished" if result is None else f"ended as {result['status']}"
    if result is None or result["status"] != "FINISHED" or result["final_checkpoint"] is None:
        raise RunFolderError(
            f"{folder.path} {status}, and the encoder of a finished run alone is registered; resume it with "
            f"`jepa-lab run --resume {shlex.quote(str(folder.path))}`"
        )
    return result


@contextlib.contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """Within, MLflow's default store is this one: a SQL registry looks up `models:/m-...` there."""
    before = os.environ.get(STORE_VARIABLE)
    os.environ[STORE_VARIABLE] = uri_for_mlflow(connection_uri(with_credentials(uri)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[STORE_VARIABLE]
        else:
            os.environ[STORE_VARIABLE] = before


def _loadable_model(client: MlflowClient, run_id: str, folder: RunFolder, result: dict[str, Any]) -> str:
    """Id of the run's logged model, completed if an early jepa-lab logged it without what MLflow loads it by."""
    (model, *_) = find_models(client, run_id, result["final_checkpoint"])
    files = {file.path for file in client.list_logged_model_artifacts(model.model_id)}
    if "MLmodel" not in files:
        log_model(client, run_id, folder, result)
    return str(model.model_id)


def _version(client: MlflowClient, name: str, run_id: str, model_id: str, folder: RunFolder) -> tuple[str, bool]:
    """The version of the registered model that is this logged model, and whether it was made now."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Image encoders, pretrained by jepa-lab.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model_id}"
    for known in client.search_model_versions(f"name = {quoted(name)}"):
        if known.source == source:
            return str(known.version), False
    words = f"The encoder that the probe of run {folder.name} measured: images to features."
    made = client.create_model_version(name, source, run_id, {"run": folder.name}, description=words, model_id=model_id)
    return str(made.version), True


def _explained(error: TrackerAway, name: str, uri: str) -> ConfigError | TrackerUnreachable:
    """What a failure means to the user."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    cause = error.__cause__
    if isinstance(cause, UnsupportedModelRegistryStoreURIException) or (
        isinstance(cause, MlflowException) and cause.error_code in _NO_REGISTRY
    ):
        return ConfigError(
            f"{uri} has no registry of models ({error}); load the run's model by its id (models:/m-..., on the run's "
            "page), or write the encoder with `jepa-lab export`"
        )
    if isinstance(cause, MlflowException) and cause.get_http_status_code() < 500:
        return ConfigError(f"MLflow at {uri} refused to register {name!r}: {error}")
    return TrackerUnreachable(
        f"{uri} could not be reached, or failed ({error}); run the same command again when it answers"
    )
