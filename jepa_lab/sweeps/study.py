"""Optuna's study of a sweep: what is planned, what is done, and the numbers of the trials.

The parent alone asks and tells. A trial of a table is an arm with a seed, enqueued beforehand; its parameters in the
study are just these two, where they have few values. Optuna's heartbeat does not work with ask and tell, so an
interrupted trial is one that is still RUNNING when the parent, which holds the sweep's lock, starts again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.journal import fix_journal, open_journal
from jepa_lab.sweeps.outages import IMPATIENT, Patience
from jepa_lab.tracking.uris import absolute_uri, check_uri, sqlite_path

Direction = Literal["maximize", "minimize"]

_MOST_CHOICES = 50
"""Beyond these, arms or seeds are no parameters in Optuna, which keeps all choices of a parameter with each trial: of
200 arms, 2,000 times 200 names were read whenever a sweep was resumed. They are user attributes of each trial anyway.
"""


@dataclass(frozen=True)
class PlannedTrial:
    """An arm with a seed.

    Attributes:
        role: "arm" in a table; "confirm" or "final" after a search.
    """

    arm: str
    seed: int
    role: str = "arm"


def planned_trials(arms: Iterable[str], seeds: Iterable[int], role: str = "arm") -> list[PlannedTrial]:
    """The trials of a table by their numbers: seed after seed, and arm after arm for each."""
    names = list(arms)
    return [PlannedTrial(name, seed, role) for seed in seeds for name in names]


def open_storage(journal: Path, url: str | None, fix: bool = True, patience: Patience = IMPATIENT) -> BaseStorage:
    """Optuna's storage: the sweep's journal, or any database that Optuna knows.

    Args:
        fix: the caller holds the sweep's lock: a lock file or a torn last line was left by a process that was killed.
        patience: with a database.
    Raises:
        ConfigError: the URL cannot be opened.
        StorageUnavailable: the database does not answer.
        RunFolderError, RunStopped: the journal cannot be read or written.
    """
    if url is None:
        if fix:
            fix_journal(journal)
        return open_journal(journal)
    from jepa_lab.sweeps.database import open_database  # SQLAlchemy, which a journal does without

    return open_database(_storage_url(url), patience)


def _storage_url(url: str) -> str:
    """The URL for Optuna, with the path of a SQLite file percent-encoded: Optuna would fill in braces in it.

    Raises:
        ConfigError: if the URL names no file, or another one than its author may mean.
    """
    if sqlite_path(url) is None:
        return url
    try:
        check_uri(url)
    except ValueError as error:
        raise ConfigError(f"--storage: {error}") from None
    return absolute_uri(url)


def quiet_optuna() -> None:
    """Only warnings: the sweep has its own progress."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def enqueued_params(trial: FrozenTrial) -> dict[str, Any]:
    """Arm and seed that a trial of a table was enqueued with.

    `trial.params` has only those that were asked for, which a kill may have come between.
    """
    return dict(trial.system_attrs["fixed_params"])


@dataclass
class _Open:
    """A trial that is not over, as far as it was told.

    Attributes:
        id: of the trial in its storage. notes: its user attributes. steps: those with an intermediate value.
    """

    id: int
    notes: dict[str, Any]
    steps: set[int]


class Study:
    """What the parent tells Optuna about trials, of tables and of searches alike.

    What is told about one trial costs the same however many there are: the trial alone is read, once, since nobody
    else writes it. (Reading all of them, a database reads every trial that is not over.)
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage) -> None:
        self._study, self._storage = study, storage
        self._open: dict[int, _Open] = {}

    @property
    def storage(self) -> BaseStorage:
        """Where the study is kept."""
        return self._storage

    @cached_property
    def id(self) -> int:
        """Number of the study in its storage."""
        return int(self._storage.get_study_id_from_name(self._study.study_name))

    def trials(self) -> list[FrozenTrial]:
        """All trials as they are now."""
        return list(self._study.get_trials(deepcopy=False))

    def note(self, number: int, key: str, value: Any) -> None:
        """Keep a user attribute (a JSON value)."""
        trial = self._open_trial(number)
        if trial.notes.get(key) != value:
            self._storage.set_trial_user_attr(trial.id, key, value)
            trial.notes[key] = value

    def failures(self, number: int) -> int:
        """Attempts of a trial that have failed."""
        return int(self._open_trial(number).notes.get("failures", 0))

    def report(self, number: int, value: float, step: int) -> None:
        """Keep an intermediate value; one that is there already stays."""
        trial = self._open_trial(number)
        if step not in trial.steps:
            self._storage.set_trial_intermediate_value(trial.id, step, value)
            trial.steps.add(step)

    def finish(self, number: int, value: float | None) -> None:
        """The trial is over, with its value or (None) failed."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(number, value, state)
        self._open.pop(number, None)

    def prune(self, number: int) -> None:
        """The trial was ended early."""
        self._study.tell(number, state=TrialState.PRUNED)
        self._open.pop(number, None)

    def name_metric(self, metric: str) -> None:
        """Let Optuna's plots and its dashboard call the value by its name."""
        if self._study.metric_names != [metric]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # which is no news for the user
                self._study.set_metric_names([metric])

    def recorded_plan(self) -> str | dict[str, Any] | None:
        """Digest of the plan that the study was made for; all of it in an old study, None in a new one."""
        return self._study.user_attrs.get("plan")

    def describe(self, words: Mapping[str, str]) -> None:
        """Keep what the study is about, a short text by each name, as its user attributes."""
        for name, text in words.items():
            if self._study.user_attrs.get(name) != text:
                self._study.set_user_attr(name, text)

    def described(self, name: str) -> str | None:
        """A text that `describe` has kept."""
        return self._study.user_attrs.get(name)

    def run_folders(self) -> list[str]:
        """Of the trials that have a value: their run folders, as seen from the sweep folder."""
        done = (trial for trial in self.trials() if trial.state == TrialState.COMPLETE)
        return [trial.user_attrs["run_folder"] for trial in done]

    def _frozen(self, number: int) -> FrozenTrial:
        """The trial as it is now."""
        return self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(self.id, number))

    def _open_trial(self, number: int) -> _Open:
        if number not in self._open:
            trial = self._frozen(number)
            self._open[number] = _Open(trial._trial_id, dict(trial.user_attrs), set(trial.intermediate_values))
        return self._open[number]


class TableStudy(Study):
    """The study of a table: every arm with every seed, once.

    Args:
        storage: see `open_storage`.
        name: study name in the storage.
        direction: of the metric.
        arms, seeds: all that may be planned.
    """

    def __init__(
        self, storage: BaseStorage, name: str, direction: Direction, arms: Iterable[str], seeds: Iterable[int]
    ) -> None:
        quiet_optuna()
        sampler = RandomSampler(seed=0)  # never asked: every trial is enqueued with its parameters
        super().__init__(
            optuna.create_study(
                storage=storage, study_name=name, direction=direction, load_if_exists=True, sampler=sampler
            ),
            storage,
        )
        choices: dict[str, tuple[str, ...] | tuple[int, ...]] = {"arm": tuple(arms), "seed": tuple(seeds)}
        self._distributions = {
            name: CategoricalDistribution(found) for name, found in choices.items() if len(found) <= _MOST_CHOICES
        }

    def enqueue(self, planned: Iterable[PlannedTrial]) -> None:
        """Add the trials that are not in the study yet."""
        present = {self.planned(trial) for trial in self.trials()}
        for each in planned:
            if each not in present:
                fixed = {"arm": each.arm, "seed": each.seed}
                self._study.enqueue_trial(fixed, user_attrs={"role": each.role, **fixed})

    def arms(self) -> list[str]:
        """All that have a trial."""
        return list(dict.fromkeys(self.planned(trial).arm for trial in self.trials()))

    def planned(self, trial: FrozenTrial) -> PlannedTrial:
        """Arm, seed and role of a trial."""
        params = enqueued_params(trial)
        return PlannedTrial(params["arm"], params["seed"], trial.user_attrs["role"])

    def to_run(self) -> list[tuple[int, PlannedTrial]]:
        """Numbers and content of the trials that are not over: interrupted ones first, then waiting ones."""
        left = [trial for trial in self.trials() if not trial.state.is_finished()]
        left.sort(key=lambda trial: (trial.state != TrialState.RUNNING, trial.number))
        return [(trial.number, self.planned(trial)) for trial in left]

    def begin(self, number: int) -> None:
        """Mark a trial as running; one that is running already (it was interrupted) stays so.

        Optuna's own `ask` would look through all waiting trials for the first one.
        """
        trial = self._frozen(number)
        if trial.state == TrialState.WAITING:
            self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        params = enqueued_params(trial)
        for name, distribution in self._distributions.items():
            if name not in trial.params:  # a kill may have come between two of them
                value = distribution.to_internal_repr(params[name])
                self._storage.set_trial_param(trial._trial_id, name, value, distribution)
