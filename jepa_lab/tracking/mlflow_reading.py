"""Reads runs back from MLflow, for `jepa-lab compare`: finds what was named, and returns a frame of runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from jepa_lab.errors import ConfigError
from jepa_lab.registry import did_you_mean
from jepa_lab.tracking.credentials import connection_uri, scrub, server_credentials, with_credentials
from jepa_lab.tracking.description import RunDescription
from jepa_lab.tracking.folder_names import named_folder
from jepa_lab.tracking.mlflow_calls import RunUnknown, TrackerAway, tracker_calls
from jepa_lab.tracking.mlflow_mirror import PARENT_TAG
from jepa_lab.tracking.mlflow_names import quoted, readable_value
from jepa_lab.tracking.mlflow_store import RUN_UID_TAG, quiet_mlflow
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.store_choice import Choice, choose_experiment, choose_store
from jepa_lab.tracking.uris import sqlite_path, uri_for_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_PAGE = 1000
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_INFO = ("run_id", "name", "status", "started")


@dataclass(frozen=True)
class ReadRuns:
    """Runs of a tracking store.

    Attributes:
        frame: one line a run, the oldest first: `run_id`, `name`, `status` (MLflow's word), `started` (Unix seconds),
            and a column for each `params.<key>`, `tags.<key>` (text, missing where a run has none) and
            `metrics.<key>` (the last value, NaN where a run has none).
        source: what was read, in words.
    """

    frame: pd.DataFrame
    source: str


def read_runs(names: Sequence[str], uri: str | None, roots: Sequence[Path] = ()) -> ReadRuns:
    """The runs that were named, each once.

    Args:
        names: run ids, run names, run folders, sweep folders, experiments; a sweep, by its folder or its own run,
            stands for its trials. None names the experiment of the environment (MLFLOW_EXPERIMENT_NAME), else
            `jepa-lab`.
        uri: tracking URI; None takes the store of the folders among `names`, else that of the environment
            (MLFLOW_TRACKING_URI), else `mlflow.db` in the current folder.
        roots: folders of run folders and of sweep folders, whose names are taken for these folders if no `uri` is
            given: their store may be another one than the default.
    Raises:
        ConfigError: if something is not there, or the store cannot be read.
        RunFolderError: if a folder that was named is damaged.
    """
    named = roots if uri is None else ()
    paths = {name: Path(name) if _is_folder(name) else named_folder(name, named) for name in names}
    folders = {name: RunFolder.open(path).read_description() for name, path in paths.items() if path is not None}
    store = choose_store(uri, "--uri", _store_of(folders) if uri is None else None)
    chosen = names or (choose_experiment(None, "").value,)
    try:
        with server_credentials(with_credentials(store.value)):
            finder = _Finder(_client(store), folders)
            found = [run for name in chosen for run in finder.find(name)]
    except TrackerAway as error:
        raise ConfigError(
            f"the tracking store {store.shown} cannot be read ({error}); "
            "is it the right one (--uri names another), and is its server running?"
        ) from error
    return ReadRuns(_frame(_once(found)), f"{', '.join(chosen)} in {store.shown}")


def _is_folder(name: str) -> bool:
    """Whether a name is meant as a folder: an experiment `jepa-lab` may stand beside a folder of that name."""
    path = Path(name)
    return path.is_dir() and ((path / "run.json").is_file() or len(path.parts) != 1)


def _store_of(folders: dict[str, RunDescription]) -> Choice | None:
    """The store in which the named folders are; None where none is named.

    Raises:
        ConfigError: if they are in several stores, or in none.
    """
    stores = {}
    for name, description in folders.items():
        if description.tracker is None:
            raise ConfigError(f"{name} was run with `tracking: none` and is not in MLflow; name runs that are")
        stores[description.tracker.uri] = name
    if len(stores) > 1:
        places = "; ".join(f"{name} in {store}" for store, name in stores.items())
        raise ConfigError(f"the folders are recorded in several stores ({places}); compare those of one store")
    return next((Choice(store, name) for store, name in stores.items()), None)


def _client(store: Choice) -> MlflowClient:
    """A client for reading, used within `server_credentials`.

    Raises:
        ConfigError: if there is no such database.
    """
    database = sqlite_path(store.value)
    if database is not None and not database.is_file():
        raise ConfigError(
            f"there is no MLflow database {database.absolute()} ({store.why}); run a pipeline first "
            "(`jepa-lab run ...`), go to the folder in which you ran it, or name the store with --uri"
        )
    quiet_mlflow()
    from mlflow import MlflowClient

    with tracker_calls():
        uri = uri_for_mlflow(connection_uri(with_credentials(store.value)))
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


class _Finder:
    """Finds runs by whatever a person calls them.

    Args:
        folders: `run.json` of the names that are folders.
    """

    def __init__(self, client: MlflowClient, folders: dict[str, RunDescription]) -> None:
        self._client, self._folders = client, folders
        self._known: list[Experiment] | None = None

    def find(self, name: str) -> list[Run]:
        """The runs that a name stands for.

        Raises:
            ConfigError: if there are none. TrackerAway: if the store failed.
        """
        if name in self._folders:
            found = self._search(f"tags.`{RUN_UID_TAG}` = '{self._folders[name].run_uid}'")
            if not found:
                raise ConfigError(f"MLflow has no run of {name}; `jepa-lab sync {name}` sends what it lacks")
            return self._trials_for_sweeps(found)
        by_id = self._by_id(name) if _RUN_ID.fullmatch(name) else None
        if by_id is not None:
            return self._trials_for_sweeps([by_id])
        experiment = next((each for each in self._experiments() if each.name == name), None)
        named = self._search(f"attributes.run_name = {quoted(name)}") if experiment is None else []
        if experiment is not None:
            runs = [run for run in self._search("", [experiment.experiment_id]) if not _is_sweep(run)]
            if not runs:
                raise ConfigError(f"the experiment {name!r} has no runs; name another one")
            return runs
        if not named:
            raise self._unknown(name)
        return self._trials_for_sweeps(named)

    def _by_id(self, run_id: str) -> Run | None:
        try:
            with tracker_calls():
                return self._client.get_run(run_id)
        except RunUnknown:
            return None

    def _experiments(self) -> list[Experiment]:
        if self._known is None:
            self._known = list(
                _pages(lambda token: self._client.search_experiments(max_results=_PAGE, page_token=token))
            )
        return self._known

    def _search(self, query: str, experiments: Sequence[str] | None = None) -> list[Run]:
        """Runs that are not deleted, the oldest first, a request for each thousand."""
        places = [each.experiment_id for each in self._experiments()] if experiments is None else list(experiments)
        order = ["attributes.start_time ASC"]
        return list(
            _pages(
                lambda token: self._client.search_runs(
                    places, query, max_results=_PAGE, order_by=order, page_token=token
                )
            )
        )

    def _trials_for_sweeps(self, runs: Sequence[Run]) -> list[Run]:
        """The runs, with the trials of a sweep in its place."""
        found: list[Run] = []
        for run in runs:
            if not _is_sweep(run):
                found.append(run)
                continue
            trials = self._search(f"tags.`{PARENT_TAG}` = '{run.info.run_id}'", [run.info.experiment_id])
            if not trials:
                raise ConfigError(f"the sweep {run.info.run_name!r} has no trials in MLflow yet; wait, or name another")
            found += trials
        return found

    def _unknown(self, name: str) -> ConfigError:
        experiments = [each.name for each in self._experiments()]
        runs = {run.info.run_name for run in self._search("")}
        # All names of a large store would fill the screen: only near ones are worth it, and the experiments.
        near = did_you_mean(name, {*experiments, *runs})
        hint = near if "did you mean" in near else f"; experiments: {', '.join(map(repr, sorted(experiments)))}"
        return ConfigError(
            f"{scrub(name)!r} is not a run folder, and MLflow has no run or experiment of that name{hint}"
        )


def _is_sweep(run: Run) -> bool:
    return bool(run.data.tags.get("role") == "sweep")


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    """All entries of a search that answers in pages."""
    token: str | None = None
    while True:
        with tracker_calls():
            page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _once(runs: Sequence[Run]) -> list[Run]:
    """Every run folder once, the oldest first; a second record of the same folder, which is a twin, is left out."""
    by_folder: dict[str, Run] = {}
    for run in runs:
        key = run.data.tags.get(RUN_UID_TAG, run.info.run_id)
        before = by_folder.get(key)
        if before is None or len(run.data.metrics) > len(before.data.metrics):
            by_folder[key] = run
    return sorted(by_folder.values(), key=lambda run: (run.info.start_time, run.info.run_id))


def _frame(runs: Sequence[Run]) -> pd.DataFrame:
    lines = [
        {
            "run_id": run.info.run_id,
            "name": run.info.run_name,
            "status": run.info.status,
            "started": run.info.start_time / 1000,
            # A record of an earlier jepa-lab has lists as JSON.
            **{f"params.{key}": readable_value(value) for key, value in run.data.params.items()},
            **{f"tags.{key}": value for key, value in run.data.tags.items()},
            **{f"metrics.{key}": value for key, value in run.data.metrics.items()},
        }
        for run in runs
    ]
    return pd.DataFrame(lines, columns=None if lines else list(_INFO))
