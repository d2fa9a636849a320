"""A sweep whose trials are told to a database that is restarted, killed, cut off and locked: the same sweep."""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from jepa_lab.errors import ConfigError, JepaLabError, StorageUnavailable
from jepa_lab.interruption import StopSignals
from jepa_lab.sweeps import answer_limit, outages
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.outages import Patience, StoppedWhileWaiting
from jepa_lab.sweeps.patient_storage import PatientStorage
from jepa_lab.sweeps.search import SearchParameter
from jepa_lab.sweeps.search_study import SearchStudy
from jepa_lab.sweeps.study import PlannedTrial, TableStudy, open_storage
from tests.integration.fault_proxy import wait_until
from tests.postgres import PASSWORD, LosingProxy, PostgresServer, postgres, why_not
from tests.unit.sweeps.test_queue import ScriptedExecutor, perform

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

PLANNED = [PlannedTrial("a", seed) for seed in range(3)]
FAST: Callable[[PostgresServer], None] = PostgresServer.stop
KILLED: Callable[[PostgresServer], None] = PostgresServer.kill


@pytest.fixture(scope="module")
def one_server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


@pytest.fixture
def server(one_server: PostgresServer) -> PostgresServer:
    if not one_server.is_up():  # a test that failed has left it so
        one_server.start()
    return one_server


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[LosingProxy]:
    made = LosingProxy(server.port)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder.open_or_create(tmp_path / "sweeps", "s", "a: 1\n", {"name": "s"})


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(outages, "_LOOK_SECONDS", 0.01)


def table(folder: SweepFolder, url: str | None, patience: Patience) -> TableStudy:
    return table_in(open_storage(folder.journal, url, patience=patience))


def table_in(storage: BaseStorage) -> TableStudy:
    study = TableStudy(storage, "s", "maximize", ["a"], range(3))
    study.enqueue(PLANNED)
    return study


def patient(said: list[str] | None = None, seconds: float = 60.0, stop: StopSignals | None = None) -> Patience:
    heard = list[str]() if said is None else said
    return Patience(seconds, "; it goes on", "start it", heard.append, stop)


def content(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """All of the trials that does not depend on when and where."""
    return [
        (
            trial.number,
            trial.state,
            trial.values,
            trial.params,
            {key: value for key, value in trial.user_attrs.items() if key != "seconds"},
            trial.intermediate_values,
        )
        for trial in trials
    ]


def assert_each_trial_is_once(study: TableStudy, executor: ScriptedExecutor) -> None:
    assert [study.planned(trial) for trial in study.trials()] == PLANNED
    assert [trial.number for trial in study.trials()] == [0, 1, 2]
    assert [(trial.state, trial.value) for trial in study.trials()] == [
        (TrialState.COMPLETE, float(number)) for number in range(3)
    ]
    assert executor.started == [0, 1, 2]


@pytest.mark.parametrize(("lost", "which"), [("request", "odd"), ("answer", "by chance")])
def test_a_sweep_is_the_same_whatever_commits_or_their_answers_are_lost(
    tmp_path: Path, folder: SweepFolder, server: PostgresServer, proxy: LosingProxy, lost: str, which: str
) -> None:
    chance = random.Random(0)
    is_lost = {"odd": lambda n: n % 2 == 1, "by chance": lambda n: chance.random() < 0.4}
    storage = open_storage(folder.journal, server.url(proxy.port), patience=patient())
    proxy.lose = lambda number: lost if is_lost[which](number) else None
    study = table_in(storage)
    executor = ScriptedExecutor(folder, {})
    assert perform(tmp_path, folder, study, executor)
    assert_each_trial_is_once(study, executor)
    assert proxy.commits > 40
    whole = SweepFolder.open_or_create(tmp_path / "whole", "s", "a: 1\n", {"name": "s"})
    undisturbed = table(whole, None, patient())
    assert perform(tmp_path, whole, undisturbed, ScriptedExecutor(whole, {}))
    assert content(study.trials()) == content(undisturbed.trials())


def parameter(key: str, low: float | None = None, high: float | None = None, *choices: str) -> SearchParameter:
    kind: Literal["float", "categorical"] = "categorical" if choices else "float"
    return SearchParameter(key, kind, low, high, False, None, choices, (), {}, "here")


def test_a_search_asks_for_the_same_points_whatever_answers_are_lost(
    tmp_path: Path, server: PostgresServer, proxy: LosingProxy
) -> None:
    parameters = (parameter("x", 0.0, 1.0), parameter("y", None, None, "l1", "l2"))

    def points(url: str | None) -> list[tuple[Any, ...]]:
        storage = open_storage(tmp_path / "journal.log", url, patience=patient())
        study = SearchStudy(storage, "s", "maximize", sampler="tpe", seed=0, pruner="hyperband", epochs=9)
        proxy.lose = lambda number: "answer" if number % 2 == 0 else None
        for _ in range(4):
            number, point = study.ask(parameters)
            study.report(number, float(point["x"] or 0), 1)
            study.should_prune(number)
            study.finish(number, float(point["x"] or 0))
        return content(study.trials())

    assert points(server.url(proxy.port)) == points(None)


def test_the_opening_of_a_new_database_may_lose_any_answer(
    folder: SweepFolder, server: PostgresServer, proxy: LosingProxy
) -> None:
    for lost in (0, 3, 4, 5):
        url, before = server.url(proxy.port), proxy.commits
        proxy.lose = lambda number, lost=before + lost: "answer" if number == lost else None  # type: ignore[misc]
        assert len(table(folder, url, patient()).trials()) == 3
        assert proxy.commits > before + 8


@pytest.mark.parametrize(
    ("moment", "calls", "how"),
    [
        ("create_new_study", 0, FAST),
        ("create_new_trial", 2, KILLED),
        ("set_trial_state_values", 0, FAST),  # asked for
        ("set_trial_user_attr", 1, KILLED),
        ("set_trial_state_values", 3, KILLED),  # told
        ("get_all_trials", 1, FAST),
    ],
)
def test_a_server_that_is_restarted_at_any_moment_is_waited_for(
    tmp_path: Path,
    folder: SweepFolder,
    server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    calls: int,
    how: Callable[[PostgresServer], None],
) -> None:
    real, left, timers = getattr(PatientStorage, moment), iter(range(1000)), []

    def call(*given: Any, **named: Any) -> Any:
        if next(left) == calls:
            timers.append(server.away_for(0.3, how))
        return real(*given, **named)

    monkeypatch.setattr(PatientStorage, moment, call)
    said: list[str] = []
    study = table(folder, server.url(), patient(said))
    executor = ScriptedExecutor(folder, {})
    assert perform(tmp_path, folder, study, executor)
    timers[0].join()
    assert_each_trial_is_once(study, executor)
    assert len(said) == 2
    assert "unreachable (" in said[0]
    assert "retrying until" in said[0]
    assert "answers again after" in said[1]
    assert PASSWORD not in "".join(said)


@pytest.mark.parametrize(("started", "is_left"), [(0, [1, 2]), (2, [2])])
def test_an_outage_beyond_the_limit_ends_what_runs_softly_and_the_same_command_resumes(
    tmp_path: Path,
    folder: SweepFolder,
    server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    started: int,
    is_left: list[int],
) -> None:
    url = server.url()
    study, executor = table(folder, url, patient(seconds=0.5)), ScriptedExecutor(folder, {})
    real = ScriptedExecutor.poll

    def poll(running: ScriptedExecutor, seconds: float) -> Any:
        if len(running.started) > started and server.is_up():
            KILLED(server)
        return real(running, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(ScriptedExecutor, "poll", poll)
        with pytest.raises(StorageUnavailable, match=r"has been unreachable for .* s \(.*\); start it") as caught:
            perform(tmp_path, folder, study, executor)
    server.start()
    assert caught.value.exit_code == 3
    assert "postgresql+psycopg://127.0.0.1" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert not executor.ready  # what ran was asked to stop, and has said that it did
    again, resumed = table(folder, url, patient()), ScriptedExecutor(folder, {})
    assert perform(tmp_path, folder, again, resumed)
    assert resumed.started == is_left
    executor.started += [number for number in resumed.started if number not in executor.started]
    assert_each_trial_is_once(again, executor)


def test_a_signal_ends_the_waiting(folder: SweepFolder, server: PostgresServer) -> None:
    stop = StopSignals()
    study = table(folder, server.url(), patient(stop=stop))
    with server.away(FAST):
        timer = threading.Timer(0.3, lambda: setattr(stop, "received", signal.SIGTERM))
        timer.start()
        with pytest.raises(StoppedWhileWaiting) as caught:
            study.trials()
        assert caught.value.signal == signal.SIGTERM
        timer.join()
    assert len(study.trials()) == 3


def test_a_server_that_takes_packets_and_answers_nothing_is_cut_off_and_waited_for(
    folder: SweepFolder, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_limit, "ANSWER_SECONDS", 0.5)
    said = list[str]()
    study = table(folder, f"{server.url()}&connect_timeout=2", patient(said))
    with server.frozen():
        thread = threading.Thread(target=study.note, args=(0, "key", 1))
        thread.start()
        assert wait_until(lambda: bool(said), 30)
        assert thread.is_alive()
    thread.join(30)
    assert study.trials()[0].user_attrs["key"] == 1


def test_two_sweeps_may_make_the_tables_of_a_new_database_at_once(tmp_path: Path, server: PostgresServer) -> None:
    url, failures = server.url(), list[BaseException]()

    def open_it() -> None:
        try:
            open_storage(tmp_path / "unused", url, patience=patient())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (("/optuna", "/none"), ConfigError, r'database "none" does not exist\); make the database with `createdb`'),
        (("lab", "nobody"), ConfigError, r'failed for user "nobody"\); check the user and the password'),
        (
            ("127.0.0.1", "no-such-host.invalid"),
            ConfigError,
            r"Name or service not known\); check the name of the host",
        ),
        (("S3CRET", "S3CR@ET"), ConfigError, r"--storage is not the URL of a database; .* in a password write '@'"),
        (("+psycopg", "+psycopg2"), ConfigError, r"needs the driver psycopg2, which is not installed .* `pip install"),
        (("postgresql+psycopg", "redis"), ConfigError, r"--storage cannot be opened .*; give an Optuna URL such as"),
        ((":", ":1"), StorageUnavailable, r"is unreachable \(.*\); check the URL of --storage, start the database"),
    ],
)
def test_a_url_that_cannot_be_opened_is_one_sentence_with_a_remedy_and_without_the_password(
    folder: SweepFolder,
    server: PostgresServer,
    change: tuple[str, str],
    error: type[JepaLabError],
    words: str,
) -> None:
    url = server.url()
    wrong = url.replace(*change) if change[0] != ":" else url.replace(f":{server.port}/", ":1/")
    with pytest.raises(error, match=words) as caught:
        open_storage(folder.journal, wrong)
    assert "S3CR" not in str(caught.value)
    assert "ET@" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_package_of_the_driver_the_sentence_says_how_to_install_it(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r'driver psycopg, which is not installed .* `pip install "jepa-lab\[postg'):
        open_storage(folder.journal, "postgresql+psycopg://lab@127.0.0.1/optuna")


def test_a_wrong_password_is_bad_input(folder: SweepFolder, server: PostgresServer) -> None:
    with pytest.raises(ConfigError, match=r"password authentication failed .*; check the user and the password"):
        open_storage(folder.journal, server.url().replace(PASSWORD, "wrong"))


def test_a_sqlite_file_that_another_process_has_locked_is_waited_for(tmp_path: Path, folder: SweepFolder) -> None:
    file, said = tmp_path / "optuna.db", list[str]()
    study, executor = table(folder, f"sqlite:///{file}?timeout=0.1", patient(said)), ScriptedExecutor(folder, {})
    locked = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    later = threading.Timer(0.5, locked.close)
    later.start()
    assert perform(tmp_path, folder, study, executor)
    later.join()
    assert_each_trial_is_once(study, executor)
    assert "unreachable (database is locked)" in said[0]
