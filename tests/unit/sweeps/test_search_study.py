"""The study of a search: points survive a parent that is killed while it asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.storages import JournalStorage

from jepa_lab.sweeps.search import SearchParameter
from jepa_lab.sweeps.search_study import SAMPLERS, SearchStudy
from jepa_lab.sweeps.study import open_storage

PARAMETERS = (
    SearchParameter("masker", "categorical", None, None, False, None, ("multi_block", "random"), (), {}, "x:1"),
    SearchParameter("masker.num_targets", "int", 1, 3, False, 1, (), (), {"masker": "multi_block"}, "x:2"),
    SearchParameter("optimizer.learning_rate", "float", 1e-4, 1e-2, True, None, (), (), {}, "x:3"),
)


def open_search(folder: Path, sampler: str) -> SearchStudy:
    storage = open_storage(folder / "journal.log", None)
    return SearchStudy(storage, "s", "maximize", sampler=sampler, seed=0, pruner=None, epochs=3)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kill_after", [0, 1, 2])
def test_a_point_that_was_not_complete_when_the_parent_was_killed_keeps_its_number_and_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, kill_after: int
) -> None:
    parameters = PARAMETERS if sampler in ("tpe", "random") else (PARAMETERS[0], PARAMETERS[2])
    study = open_search(tmp_path, sampler)
    number, _ = study.ask(parameters)
    study.finish(number, 0.5)
    with monkeypatch.context() as patch:
        real, calls = JournalStorage.set_trial_param, iter(range(9))

        def set_trial_param(*given: Any) -> None:
            if next(calls) == min(kill_after, len(parameters) - 1):
                raise KeyboardInterrupt
            real(*given)

        patch.setattr(JournalStorage, "set_trial_param", set_trial_param)
        with pytest.raises(KeyboardInterrupt):
            study.ask(parameters)
    written = dict(study.trials()[1].params)
    ((number, point),) = open_search(tmp_path, sampler).interrupted(parameters)
    assert number == 1
    assert written.items() <= dict(point).items()
    assert set(point) == {parameter.key for parameter in parameters if parameter.applies(point)}


def searched(folder: Path, values: list[float | None]) -> SearchStudy:
    study = open_search(folder, "random")
    for value in values:
        number, _ = study.ask(PARAMETERS[2:])
        study.finish(number, value)
    return study


def test_of_equally_good_points_the_earlier_is_the_better(tmp_path: Path) -> None:
    study = searched(tmp_path, [0.5, None, 0.9, 0.9, 0.1, 0.9])
    assert [trial.number for trial in study.best(3)] == [2, 3, 5]
    assert [trial.number for trial in study.best(9)] == [2, 3, 5, 0, 4]


@pytest.mark.parametrize(("points", "known"), [(3, False), (4, True)])
def test_importances_need_four_points(tmp_path: Path, points: int, known: bool) -> None:
    study = searched(tmp_path, [0.1 * number for number in range(points)])
    assert bool(study.importances()) == known
