"""MLflow: a separate process copies the run folder to a tracking store while the run goes on.

Imports nothing of MLflow; the mirror process does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, field_serializer, field_validator

from jepa_lab.errors import ConfigError
from jepa_lab.registry import ComponentParams
from jepa_lab.tracking.atomic import explained_writes
from jepa_lab.tracking.base import TRACKERS, MirrorState, Tracker
from jepa_lab.tracking.credentials import credential_environment, without_credentials
from jepa_lab.tracking.description import TrackerSettings
from jepa_lab.tracking.mirror_cursor import mirror_state
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.store_choice import (
    Choice,
    RecordedPlace,
    choose_experiment,
    choose_store,
    ignored_variables,
    is_store_without_option,
)
from jepa_lab.tracking.uris import (
    absolute_uri,
    artifact_uri,
    check_artifact_location,
    check_uri,
    default_artifact_location,
    sqlite_path,
)

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class MlflowParams(ComponentParams):
    """Where the MLflow record goes."""

    uri: str | None = Field(
        None,
        repr=False,
        description="Tracking URI: sqlite:///FILE, http(s)://SERVER, postgresql://... ; null is the environment's "
        "MLFLOW_TRACKING_URI, else mlflow.db in the current folder. In FILE write '%' as %25 and '?' as %3F. "
        "Credentials in it are used, but written nowhere.",
    )
    artifact_location: str | None = Field(
        None,
        description="Artifact folder of a new experiment, a path or a URI; null is mlflow-artifacts beside a SQLite "
        "file, and the server's own choice otherwise.",
    )
    experiment: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="MLflow experiment; null is the environment's MLFLOW_EXPERIMENT_NAME, else jepa-lab.",
    )
    run_name: str | None = Field(
        None,
        min_length=1,
        max_length=250,
        description="Run name in MLflow; null is the name of the run folder. Trials of a sweep are named ARM sSEED.",
    )
    flush_seconds: float = Field(
        5.0, gt=0, le=3600, description="Seconds between two looks at metrics.jsonl by the mirror process."
    )

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str | None) -> str | None:
        if uri is not None:
            check_uri(uri)
        return uri

    @field_validator("artifact_location")
    @classmethod
    def _check_artifact_location(cls, location: str | None) -> str | None:
        if location is not None:
            check_artifact_location(location)
        return location

    @field_serializer("uri")
    def _hide_credentials(self, uri: str | None) -> str | None:
        return None if uri is None else without_credentials(uri)


@TRACKERS.register("mlflow", summary="a copy of the run in MLflow, sent by a process of its own", source="MLflow 3")
class MlflowTracker(Tracker):
    """Starts the mirror process beside a run and waits for it at the end.

    Raises:
        ConfigError: MLflow is not installed, or the store that was chosen is none.
    """

    Params = MlflowParams

    def __init__(self, params: ComponentParams, recorded: RecordedPlace | None = None) -> None:
        assert isinstance(params, MlflowParams)
        if importlib.util.find_spec("mlflow") is None:
            raise ConfigError(
                "tracking: mlflow needs the package mlflow, which is not installed; "
                "`pip install mlflow`, or set `tracking: none`"
            )
        super().__init__(params, recorded)
        self._store, self._experiment = _store(params, recorded), _experiment(params, recorded)
        self._credentials = credential_environment(self._store.value)
        self._settings = _settings(params, self._store, self._experiment, recorded)
        self._folder: RunFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def settings(self) -> TrackerSettings | None:
        return self._settings

    def start(self, folder: RunFolder) -> None:
        self._folder = folder
        command = [sys.executable, "-P", "-m", "jepa_lab.tracking.mirror", str(folder.path.absolute())]
        paths = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            **self._credentials,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": "1",
        }
        with explained_writes(folder.mirror_log), open(folder.mirror_log, "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the run; the mirror drains first
            )

    def close(self, timeout_seconds: float, say: Callable[[str], None] = print) -> MirrorState:
        assert self._folder is not None, "closed before it was started"
        assert self._process is not None, "closed before it was started"
        assert self._process.stdin is not None, "started with a pipe"
        with contextlib.suppress(BrokenPipeError):  # the mirror has died; its exit code says so below
            self._process.stdin.close()
        try:
            if timeout_seconds > 0 and self._process.poll() is None:
                say(self._waiting(self._folder, timeout_seconds))
            code = self._process.wait(timeout_seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            return dataclasses.replace(mirror_state(self._folder), still_sending=True)
        state = mirror_state(self._folder)
        if code != 0 and state.error is None:
            return dataclasses.replace(state, error=f"the mirror ended with code {code}; see {self._folder.mirror_log}")
        return state

    def _waiting(self, folder: RunFolder, timeout_seconds: float) -> str:
        """What is waited for, how long, and what to do without waiting."""
        last_error = mirror_state(folder).error
        trouble = f" (last error: {last_error})" if last_error else ""
        command = f"jepa-lab sync {shlex.quote(str(folder.path))}"
        return (
            f"sending the rest to {self._settings.uri}{trouble}, for up to {timeout_seconds:.0f} s; "
            f"the result is safe: Ctrl-C ends only the wait, and `{command}` completes the record"
        )

    def describe(self) -> str:
        uri, experiment = self._settings.uri, self._experiment
        where = f"MLflow experiment {experiment.value!r} ({experiment.why})"
        if sqlite_path(uri) is None:
            where = f"{where} at {self._store.shown}"
        else:
            option = "" if is_store_without_option(uri) else f" --uri {shlex.quote(uri)}"
            where = f"{where} in {self._store.shown}; open it with `jepa-lab ui{option}`"
        return ". ".join([where, *ignored_variables(experiment)])


def _store(params: MlflowParams, recorded: RecordedPlace | None) -> Choice:
    """The store, with the file of a SQLite URI made absolute: a later `sync` may run in another folder.

    Raises:
        ConfigError: it is no tracking URI.
    """
    place = None if recorded is None else Choice(recorded.settings.uri, recorded.holder)
    choice = choose_store(params.uri, "tracking.uri", place)
    return Choice(absolute_uri(choice.value), choice.origin)


def _experiment(params: MlflowParams, recorded: RecordedPlace | None) -> Choice:
    place = None if recorded is None else Choice(recorded.settings.experiment, recorded.holder)
    return choose_experiment(params.experiment, "tracking.experiment", place)


def _settings(
    params: MlflowParams, store: Choice, experiment: Choice, recorded: RecordedPlace | None
) -> TrackerSettings:
    """What the mirror is told: nothing of it is a secret."""
    uri = without_credentials(store.value)
    location = None if params.artifact_location is None else artifact_uri(params.artifact_location)
    if location is None and recorded is not None and recorded.settings.uri == uri:
        location = recorded.settings.artifact_location
    return TrackerSettings(
        uri=uri,
        artifact_location=location or default_artifact_location(uri),
        experiment=experiment.value,
        run_name=params.run_name,
        flush_seconds=params.flush_seconds,
        uri_from=store.origin,
        experiment_from=experiment.origin,
    )
