"""The studies of a sweep: one for a table; for a search one of its points and two tables after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import get_all_study_names, load_study

from jepa_lab.errors import RunFolderError
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.search_study import SearchStudy
from jepa_lab.sweeps.study import Study, TableStudy, enqueued_params, open_storage


def open_studies(folder: SweepFolder, url: str | None) -> Studies:
    """The studies of a sweep that has begun, perhaps of one that is going on, to be read.

    Args:
        url: Optuna URL, where the sweep was given one.
    Raises:
        RunFolderError: they are not there.
    """
    plan, place = folder.read_plan(), f"in {folder.journal}" if url is None else "in the storage"
    missing = RunFolderError(
        f"the trials of {folder.path} are not {place}; give the --storage that its `jepa-lab sweep` was given"
    )
    if url is None and not folder.journal.exists():
        raise missing
    with folder.lock() as lock:
        storage = open_storage(folder.journal, url, fix=lock.try_acquire())
        if plan["name"] not in get_all_study_names(storage=storage):
            raise missing
        return Studies(storage, plan)


class Studies:
    """Opens the studies of a plan.

    Args:
        plan: content of plan.json.
    """

    def __init__(self, storage: BaseStorage, plan: Mapping[str, Any]) -> None:
        self._storage, self._plan = storage, plan

    @property
    def first(self) -> Study:
        """The one that carries the name of the plan."""
        return self.table if self._plan["search"] is None else self.search

    @cached_property
    def table(self) -> TableStudy:
        """The table of a plan that is no search."""
        return TableStudy(
            self._storage,
            self._plan["name"],
            self._plan["direction"],
            tuple(self._plan["arms"]),
            self._plan["seeds"],
        )

    @cached_property
    def search(self) -> SearchStudy:
        """The points of a search."""
        search = self._plan["search"]
        return SearchStudy(
            self._storage,
            self._plan["name"],
            self._plan["direction"],
            sampler=search["sampler"],
            seed=search["sampler_seed"],
            pruner=search["pruner"],
            epochs=self._plan["baseline_config"]["training.epochs"],
        )

    def after(self, role: str, arms: Sequence[str], seeds: Sequence[int]) -> TableStudy:
        """A table after a search.

        Args:
            role: "confirm" (the best points on the other seeds) or "final" (the winner on fresh ones).
        """
        return TableStudy(self._storage, self._name_after(role), self._plan["direction"], arms, seeds)

    def after_any(self, role: str) -> TableStudy:
        """A table after a search that has begun, to be read."""
        loaded = load_study(study_name=self._name_after(role), storage=self._storage)
        params = [enqueued_params(trial) for trial in loaded.trials]
        arms, seeds = (list(dict.fromkeys(each[key] for each in params)) for key in ("arm", "seed"))
        return self.after(role, arms, seeds)

    def has(self, role: str) -> bool:
        """Whether a table after the search has begun."""
        return self._name_after(role) in get_all_study_names(storage=self._storage)

    def _name_after(self, role: str) -> str:
        return f"{self._plan['name']} {role}"
