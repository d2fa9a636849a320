"""Which MLflow store and experiment a command uses, and where that choice came from.

The order is the same everywhere: what the user wrote (`--uri`, `tracking.uri`), then what the run or sweep folder
recorded, then MLflow's own environment variables, then `mlflow.db` in the current folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.credentials import STORE_VARIABLE, without_credentials
from jepa_lab.tracking.description import TrackerSettings
from jepa_lab.tracking.uris import absolute_uri, check_uri, default_uri

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT_ID_VARIABLE = "MLFLOW_EXPERIMENT_ID"
RUN_VARIABLE = "MLFLOW_RUN_ID"
DEFAULT_EXPERIMENT = "jepa-lab"
DEFAULT = "default"
_LONGEST_EXPERIMENT = 500


@dataclass(frozen=True)
class Choice:
    """A store or an experiment.

    Attributes:
        value: tracking URI, perhaps with credentials, or name of the experiment.
        origin: where it came from: a setting, an option, a variable, a folder, or "default".
    """

    value: str = field(repr=False)
    origin: str

    @property
    def why(self) -> str:
        """The origin in words."""
        return "the default" if self.origin == DEFAULT else f"from {self.origin}"

    @property
    def shown(self) -> str:
        """The value without credentials, and its origin."""
        return f"{without_credentials(self.value)} ({self.why})"


@dataclass(frozen=True)
class RecordedPlace:
    """Where the record of a run, or of the sweep that it is a trial of, already is.

    Attributes:
        holder: what says so: "the run folder" or "the sweep folder".
    """

    settings: TrackerSettings
    holder: str


def choose_store(
    given: str | None, given_as: str, recorded: Choice | None = None, environment: Mapping[str, str] = os.environ
) -> Choice:
    """The store that a command uses.

    Args:
        given: what the user wrote. given_as: where, such as "--uri".
        recorded: what a folder that the command is about says.
    Raises:
        ConfigError: the store that is chosen is no tracking URI; the message names its origin.
    """
    choice = _chosen(given, given_as, recorded, environment.get(STORE_VARIABLE), STORE_VARIABLE) or default_store()
    try:
        check_uri(choice.value)
    except ValueError as error:
        raise ConfigError(f"{choice.origin}: {error}{_how_to_override(choice.origin, 'tracking.uri')}") from None
    return choice


def choose_experiment(
    given: str | None, given_as: str, recorded: Choice | None = None, environment: Mapping[str, str] = os.environ
) -> Choice:
    """The experiment that a command uses; arguments as for `choose_store`.

    Raises:
        ConfigError: the name in the environment is too long for MLflow.
    """
    from_environment = environment.get(EXPERIMENT_VARIABLE)
    choice = _chosen(given, given_as, recorded, from_environment, EXPERIMENT_VARIABLE)
    if choice is None:
        return Choice(DEFAULT_EXPERIMENT, DEFAULT)
    if len(choice.value) > _LONGEST_EXPERIMENT:
        raise ConfigError(
            f"{choice.origin}: the name of an experiment must have at most {_LONGEST_EXPERIMENT} characters, got "
            f"{len(choice.value)}; shorten it{_how_to_override(choice.origin, 'tracking.experiment')}"
        )
    return choice


def default_store() -> Choice:
    """`mlflow.db` in the current folder."""
    return Choice(default_uri(), DEFAULT)


def is_store_without_option(uri: str) -> bool:
    """Whether `jepa-lab ui` opens this store, an absolute URI without credentials, where it is given none."""
    try:
        return without_credentials(absolute_uri(choose_store(None, "").value)) == uri
    except ConfigError:  # a variable that names no store
        return False


def ignored_variables(experiment: Choice, environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable by which MLflow's own client would choose another place, and which is not read here.

    Args:
        experiment: the one that was chosen.
    """
    ignored = []
    if environment.get(RUN_VARIABLE):
        ignored.append(f"{RUN_VARIABLE} is ignored: every run folder gets an MLflow run of its own")
    if environment.get(EXPERIMENT_ID_VARIABLE) and experiment.origin == DEFAULT:
        ignored.append(f"{EXPERIMENT_ID_VARIABLE} is ignored: set {EXPERIMENT_VARIABLE} or tracking.experiment")
    return ignored


def _chosen(
    given: str | None, given_as: str, recorded: Choice | None, from_environment: str | None, variable: str
) -> Choice | None:
    """The first of what was written, recorded, and said by the environment, where an empty variable says nothing."""
    if given is not None:
        return Choice(given, given_as)
    if recorded is not None:
        return recorded
    return Choice(from_environment, variable) if from_environment else None


def _how_to_override(origin: str, key: str) -> str:
    return f"; or unset {origin}, or set {key}" if origin in (STORE_VARIABLE, EXPERIMENT_VARIABLE) else ""
