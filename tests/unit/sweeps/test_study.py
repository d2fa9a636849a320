"""Optuna's study: nothing is enqueued twice, numbers stay, a killed parent leaves nothing broken."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.studies import open_studies
from jepa_lab.sweeps.study import PlannedTrial, TableStudy, open_storage
from jepa_lab.tracking.uris import sqlite_uri

PLANNED = [PlannedTrial(arm, seed) for seed in (0, 1) for arm in ("a", "b")]


def open_study(folder: Path) -> TableStudy:
    return TableStudy(open_storage(folder / "journal.log", None), "s", "maximize", ["a", "b"], [0, 1])


@pytest.mark.parametrize("name", ["a b", "a%20b", "a?b", "a#b", "ä", "{a}"])
def test_journal_and_storage_are_in_the_very_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    for url in (None, "sqlite:///optuna.db", sqlite_uri(Path("other%20one.db"))):
        storage = open_storage(Path.cwd() / "journal.log", url)
        TableStudy(storage, "s", "maximize", ["a", "b"], [0, 1]).enqueue(PLANNED)
        storage.remove_session()
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["journal.log", "optuna.db", "other%20one.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_storage_in_which_a_path_may_be_meant_as_it_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a%20b").mkdir()
    for url in (f"sqlite:///{tmp_path}/a%20b/o.db", f"sqlite:///{tmp_path}/a?b/o.db", "sqlite:///:memory:"):
        with pytest.raises(ConfigError, match="--storage: uri"):
            open_storage(tmp_path / "journal.log", url)


def test_nothing_is_enqueued_twice(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.enqueue(PLANNED[:3])
    study.begin(0)
    study.finish(0, 1.0)
    study.begin(1)
    again = open_study(tmp_path)
    again.enqueue(PLANNED)
    assert [again.planned(trial) for trial in again.trials()] == PLANNED
    assert [trial.state for trial in again.trials()] == [
        TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING, TrialState.WAITING,
    ]  # fmt: skip


def test_names_of_many_arms_are_not_kept_with_each_trial(tmp_path: Path) -> None:
    arms = [f"a rather long name of arm {number}" for number in range(200)]
    study = TableStudy(open_storage(tmp_path / "journal.log", None), "s", "maximize", arms, [0, 1])
    study.enqueue(PlannedTrial(arm, 1) for arm in arms)
    for number in range(200):
        study.begin(number)
    trial = study.trials()[7]
    assert (trial.params, trial.user_attrs) == ({"seed": 1}, {"arm": arms[7], "seed": 1, "role": "arm"})
    assert (tmp_path / "journal.log").stat().st_size < 200 * 1500


def test_interrupted_trials_come_first_and_keep_their_numbers(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.enqueue(PLANNED)
    for number in (0, 1, 2):
        study.begin(number)
    study.finish(0, None)
    study.finish(1, 0.5)
    again = open_study(tmp_path)
    assert again.to_run() == [(2, PLANNED[2]), (3, PLANNED[3])]
    again.begin(2)
    again.finish(2, 0.75)
    assert [trial.value for trial in again.trials()] == [None, 0.5, 0.75, None]


@pytest.mark.parametrize("written", ["nothing", "arm", "arm and seed"])
def test_a_trial_whose_parent_was_killed_while_it_began_is_still_its_arm_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    study = open_study(tmp_path)
    study.enqueue(PLANNED[:2])
    kill_after = {"nothing": 0, "arm": 1, "arm and seed": 2}[written]
    with monkeypatch.context() as patch:
        real, calls = JournalStorage.set_trial_param, iter(range(9))

        def set_trial_param(*given: Any) -> None:
            if next(calls) == kill_after:
                raise KeyboardInterrupt
            real(*given)

        patch.setattr(JournalStorage, "set_trial_param", set_trial_param)
        with contextlib.suppress(KeyboardInterrupt):
            study.begin(0)
    again = open_study(tmp_path)
    assert again.to_run() == [(0, PLANNED[0]), (1, PLANNED[1])]
    again.begin(0)
    again.finish(0, 1.0)
    assert again.trials()[0].params == {"arm": "a", "seed": 0}


def test_what_a_killed_parent_left_of_the_journal_is_mended(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.enqueue(PLANNED)
    journal = tmp_path / "journal.log"
    with open(journal, "ab") as file:
        file.write(b'{"op_code": 5, "worker')
    (tmp_path / "journal.log.lock").symlink_to(journal)
    again = open_study(tmp_path)
    again.begin(0)
    again.finish(0, 1.0)
    assert len(open_study(tmp_path).trials()) == 4


@pytest.mark.parametrize("alive", [True, False])
def test_reading_the_studies_of_a_sweep_mends_its_journal_only_when_nobody_is_writing_it(
    tmp_path: Path, alive: bool
) -> None:
    folder = SweepFolder.open_or_create(tmp_path, "s", "a: 1\n", {"name": "s"})
    open_study(folder.path).enqueue(PLANNED)
    (tmp_path / "s" / "journal.log.lock.left").write_text("of a process that is dead, or of one at work")
    with folder.lock() as lock:
        assert not alive or lock.try_acquire()
        open_studies(folder, None)
        assert (tmp_path / "s" / "journal.log.lock.left").exists() == alive


def test_intermediate_values_and_notes_are_kept_once(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.enqueue(PLANNED)
    study.begin(0)
    for value in (0.1, 0.2):
        study.report(0, value, step=3)
    study.note(0, "run_folder", "trials/x")
    (trial, *_) = study.trials()
    assert trial.intermediate_values == {3: 0.1}
    assert trial.user_attrs["run_folder"] == "trials/x"


def test_a_storage_that_cannot_be_opened_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--storage cannot be opened") as caught:
        open_storage(tmp_path / "journal.log", "nonsense://ann:hunter2@host/x")
    assert "hunter2" not in str(caught.value)


def test_the_value_is_called_by_its_metric_and_naming_it_again_writes_nothing(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.name_metric("probe/validation_accuracy")
    before = (tmp_path / "journal.log").read_bytes()
    again = open_study(tmp_path)
    again.name_metric("probe/validation_accuracy")
    again.describe({})
    assert optuna.load_study(study_name="s", storage=again.storage).metric_names == ["probe/validation_accuracy"]
    kept = (tmp_path / "journal.log").read_bytes().removeprefix(before)
    assert b"metric_names" not in kept


def test_what_a_study_is_about_is_short_text(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    assert (study.recorded_plan(), study.described("baseline")) == (None, None)
    study.describe({"plan": "0123", "baseline": "a"})
    again = open_study(tmp_path)
    again.describe({"plan": "0123", "baseline": "a"})
    assert (again.recorded_plan(), again.described("baseline")) == ("0123", "a")


@pytest.mark.parametrize("url", [None, "sqlite"])
def test_what_is_told_about_a_trial_reads_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    storage = open_storage(tmp_path / "journal.log", None if url is None else sqlite_uri(tmp_path / "optuna.db"))
    study = TableStudy(storage, "s", "maximize", ["a", "b"], [0, 1])
    study.enqueue(PLANNED)
    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "get_all_trials", lambda *given, **named: pytest.fail("all trials were read"))
        for number in (2, 0):  # in any order
            study.begin(number)
            study.report(number, 0.5, step=1)
            study.note(number, "failures", 1)
            assert study.failures(number) == 1
        study.finish(2, 0.25)
        study.prune(0)
    assert [trial.params for trial in study.trials()] == [{"arm": "a", "seed": 0}, {}, {"arm": "a", "seed": 1}, {}]
    assert [trial.value for trial in study.trials()] == [0.5, None, 0.25, None]


def test_a_trial_that_is_resumed_keeps_what_an_earlier_parent_told(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.enqueue(PLANNED)
    study.begin(0)
    study.report(0, 0.5, step=1)
    study.note(0, "failures", 2)
    size = (tmp_path / "journal.log").stat().st_size
    again = open_study(tmp_path)
    again.begin(0)
    again.report(0, 0.7, step=1)
    again.note(0, "failures", 2)
    assert again.failures(0) == 2
    assert again.trials()[0].intermediate_values == {1: 0.5}
    assert (tmp_path / "journal.log").stat().st_size < 1.2 * size, "nothing is written again"
