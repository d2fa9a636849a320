"""A sweep in MLflow: one parent, every trial a child of it, exactly once, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click.testing
import pytest

from jepa_lab.cli import main
from jepa_lab.reports.winner import winner_of
from jepa_lab.sweeps import sweep as sweep_module
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.plan import load_plan
from jepa_lab.sweeps.study import open_storage
from jepa_lab.sweeps.sweep import SweepOutcome, run_sweep
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.environment import describe_environment
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.tracking.mirror import ParentWatch, folders_to_sync, follow, sync
from jepa_lab.tracking.mirror_cursor import mirror_state, mlflow_run_id, trials_of
from jepa_lab.tracking.mlflow_store import connect
from jepa_lab.tracking.mlflow_sweep import SweepMirror
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.fault_proxy import wait_until
from tests.integration.test_sweep import ABLATION, ENVIRONMENT, settings, write_ablation
from tests.integration.test_tracker_faults import MlflowServer
from tests.integration.unpainted import COMMAND
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = MLFLOW_WARNINGS

PARENT = "mlflow.parentRunId"


class Crash(Exception):
    """Stands for SIGKILL at this very line."""


class Gone(ParentWatch):
    def __init__(self) -> None:
        """A parent that has ended."""

    def ended(self) -> bool:
        return True


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment(NO_PROXY="127.0.0.1", OMP_NUM_THREADS="1"):
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackerSettings:
    """One SQLite store for the module, because making one takes seconds."""
    made = MlflowTracker(MlflowParams(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")).settings()
    assert made is not None
    connect(made)
    return made


@pytest.fixture
def client(store: TrackerSettings) -> MlflowClient:
    return connect(store)


def make_sweep(root: Path, store: TrackerSettings | None, trials: int = 2) -> SweepFolder:
    """A sweep that has begun, with trials that have logged something and are not over."""
    folder = SweepFolder.open_or_create(root, "fake-0123", "name: fake\n", {"name": "fake"})
    record = folder.record
    record.write_environment(describe_environment(["test"], "cpu"))
    record.write_description(RunDescription({"plan.kind": "arms"}, {"role": "sweep"}, None, store))
    record.metrics.touch()
    for seed in range(trials):
        add_trial(folder, store, seed)
    return folder


def add_trial(folder: SweepFolder, store: TrackerSettings | None, seed: int) -> RunFolder:
    made = RunFolder.create(folder.trials, "fake", "0123456789", seed, "name: fake\n")
    made.write_description(RunDescription({"loss": "l2", "seed": str(seed)}, {"role": "arm"}, None, store))
    with MetricsWriter(made.metrics, None) as writer:
        for step in range(5):
            writer.append(step, step / 5, {"train/loss": 1 / (step + 1)})
    return made


def end(folder: RunFolder, status: Any = "FINISHED") -> None:
    folder.write_result(status, {"probe/validation_accuracy": 0.5}, 4)


def end_all(folder: SweepFolder) -> None:
    for trial in trials_of(folder.record):
        end(trial)
    (folder.report / "table.md").write_text("| table |\n")
    folder.record.write_result("FINISHED", {"trials/finished": 2.0}, 2)


def run_of(client: MlflowClient, folder: RunFolder) -> Run:
    run_id = mlflow_run_id(folder)
    assert run_id is not None
    return client.get_run(run_id)


def statuses(client: MlflowClient, folder: SweepFolder) -> list[str]:
    """Those of the sweep and of its trials."""
    return [run_of(client, each).info.status for each in (folder.record, *trials_of(folder.record))]


def assert_recorded_once(client: MlflowClient, folder: SweepFolder) -> None:
    """Each folder is one MLflow run with each of its rows once; every trial is a child of the sweep."""
    parent = run_of(client, folder.record)
    experiment = parent.info.experiment_id
    children = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent.info.run_id}'")
    trials = list(trials_of(folder.record))
    assert {child.info.run_id for child in children} == {mlflow_run_id(trial) for trial in trials}
    for each in (folder.record, *trials):
        uid = each.read_description().run_uid
        assert len(client.search_runs([experiment], f"tags.`jepa_lab.run_uid` = '{uid}'")) == 1
        expected = Counter((row.step, name) for row in read_metrics(each.metrics) for name, value in row.metrics.items()
                           if value is not None)  # fmt: skip
        result = each.read_result()
        last = {} if result is None else {name: result["last_step"] for name, value in result["metrics"].items()
                                          if value is not None}  # fmt: skip
        expected.update((step, name) for name, step in last.items())
        names = {name for _, name in expected}
        stored = Counter(
            (metric.step, name)
            for name in names
            for metric in client.get_metric_history(run_of(client, each).info.run_id, name)
        )
        if each is folder.record:  # a sweep that went on has counts of before as well
            assert expected.keys() <= stored.keys()
            assert set(stored.values()) == {1}
        else:
            assert stored == expected


def test_a_sweep_is_a_parent_with_its_report_and_every_trial_a_child(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path
) -> None:
    folder = make_sweep(tmp_path, store)
    SweepMirror(folder.record).push(ended=False)
    assert statuses(client, folder) == ["RUNNING"] * 3
    end_all(folder)
    assert sync(folder.path).complete
    assert statuses(client, folder) == ["FINISHED"] * 3
    assert_recorded_once(client, folder)
    parent = run_of(client, folder.record)
    assert parent.data.params == {"plan.kind": "arms"}
    assert parent.data.tags["mlflow.note.content"].startswith("| table |\n\nThe report with its figures")
    assert {each.path for each in client.list_artifacts(parent.info.run_id)} >= {"plan.json", "config.yaml", "report"}
    assert [each.path for each in client.list_artifacts(parent.info.run_id, "report")] == ["report/table.md"]


def test_a_trial_that_failed_is_running_again_when_it_is_tried_again(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path
) -> None:
    folder = make_sweep(tmp_path, store)
    first, _ = trials_of(folder.record)
    mirror = SweepMirror(folder.record)
    end(first, "FAILED")
    mirror.push(ended=False)
    assert statuses(client, folder) == ["RUNNING", "FAILED", "RUNNING"]
    first.remove_result()
    mirror.push(ended=False)
    assert statuses(client, folder) == ["RUNNING", "RUNNING", "RUNNING"]
    end_all(folder)
    mirror.push(ended=True)
    assert statuses(client, folder) == ["FINISHED"] * 3
    assert_recorded_once(client, folder)


def test_a_sweep_that_was_killed_is_killed_and_then_finished_when_it_has_gone_on(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path
) -> None:
    folder = make_sweep(tmp_path, store)
    end(next(trials_of(folder.record)))
    assert sync(folder.path).complete
    assert statuses(client, folder) == ["KILLED", "FINISHED", "KILLED"]
    mirror = SweepMirror(folder.record)  # the same command again
    mirror.push(ended=False)
    assert statuses(client, folder) == ["RUNNING", "FINISHED", "RUNNING"]
    add_trial(folder, store, 7)
    end_all(folder)
    mirror.push(ended=True)
    assert statuses(client, folder) == ["FINISHED"] * 4
    assert_recorded_once(client, folder)
    assert mirror_state(folder.record).complete


def test_a_trial_whose_worker_lives_is_running_even_if_it_has_a_result(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path
) -> None:
    folder = make_sweep(tmp_path, store, trials=1)
    (trial,) = trials_of(folder.record)
    end(trial, "FAILED")
    with FileLock(trial.path / "run.lock", "the run") as lock:
        lock.acquire(0)
        SweepMirror(folder.record).push(ended=False)
        assert statuses(client, folder) == ["RUNNING", "RUNNING"]


@pytest.mark.parametrize("method", ["create_run", "set_tag", "log_batch", "log_artifact", "set_terminated"])
@pytest.mark.parametrize("at_call", [1, 2])
def test_a_mirror_that_dies_after_any_call_is_completed_by_sync(
    client: MlflowClient,
    store: TrackerSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    at_call: int,
) -> None:
    from mlflow import MlflowClient

    folder = make_sweep(tmp_path, store)
    end_all(folder)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, method, dying_after(getattr(MlflowClient, method), at_call))
        with pytest.raises(Crash):
            sync(folder.path)
    assert not mirror_state(folder.record).complete
    assert sync(folder.path).complete
    assert statuses(client, folder) == ["FINISHED"] * 3
    assert_recorded_once(client, folder)


def dying_after(real: Callable[..., Any], at_call: int) -> Callable[..., Any]:
    """`real`, but its caller dies when the given call has done its work and before it learns so."""
    calls = 0

    def call(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(*given, **named)
        if calls == at_call:
            raise Crash
        return result

    return call


def test_a_second_sync_sends_nothing_and_a_new_report_is_added(
    store: TrackerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    folder = make_sweep(tmp_path, store)
    end_all(folder)
    assert sync(folder.path).complete
    sent: list[str] = []
    for method in ("create_run", "set_tag", "log_batch", "log_artifact", "set_terminated", "update_run"):
        real = getattr(MlflowClient, method)
        monkeypatch.setattr(
            MlflowClient, method, lambda *given, _real=real, _name=method, **named: (
                sent.append(_name), _real(*given, **named),
            )[1],
        )  # fmt: skip
    assert sync(folder.path).complete
    assert sent == []
    (folder.report / "table.md").write_text("| another table |\n")
    assert folders_to_sync(tmp_path) == [folder.path]
    assert sync(folder.path).complete
    assert sent == ["log_artifact", "log_batch"]  # the file, and the run's description


@pytest.mark.parametrize("trouble", ["deleted", "damaged"])
def test_a_trial_that_cannot_be_sent_keeps_no_other_from_being_complete(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path, trouble: str
) -> None:
    folder = make_sweep(tmp_path, store)
    first, second = trials_of(folder.record)
    SweepMirror(folder.record).push(ended=False)
    if trouble == "deleted":
        client.delete_run(str(mlflow_run_id(first)))
    end_all(folder)
    if trouble == "damaged":
        first.result.write_text("{")
    state = sync(folder.path)
    assert not state.complete
    assert {"deleted": "was deleted in MLflow; restore it there", "damaged": f"{first.result}"}[trouble] in str(
        state.error
    )
    assert run_of(client, second).info.status == "FINISHED"
    assert run_of(client, folder.record).info.status == "FINISHED"
    if trouble == "deleted":
        client.restore_run(str(mlflow_run_id(first)))
    else:
        first.result.unlink()
        end(first)
    assert sync(folder.path).complete
    assert_recorded_once(client, folder)


def test_a_trial_stands_for_its_sweep_and_shares_its_lock(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path
) -> None:
    folder = make_sweep(tmp_path, store)
    end_all(folder)
    first, _ = trials_of(folder.record)
    with FileLock(folder.record.mirror_lock, "the mirror of the sweep") as held:
        held.acquire(0)
        assert sync(first.path, lock_seconds=0).still_sending
        assert follow(first, Gone(), grace_seconds=0.1) is False  # a trial that is resumed alone waits as well
        assert mlflow_run_id(first) is None
    assert sync(first.path).complete
    assert mirror_state(folder.record).complete
    assert_recorded_once(client, folder)


def test_sync_of_a_living_sweep_sends_what_is_there_and_says_that_it_goes_on(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path
) -> None:
    folder = make_sweep(tmp_path, store)
    with folder.lock() as lock:
        lock.acquire(0)
        assert folders_to_sync(tmp_path) == []
        assert sync(folder.path).still_sending
        assert statuses(client, folder) == ["RUNNING"] * 3


def test_sync_without_arguments_completes_runs_and_sweeps_as_one_record_each(
    client: MlflowClient, store: TrackerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = invoke("sync")
    assert missing.exit_code == 2
    assert "there is no folder runs" in missing.output
    folder = make_sweep(tmp_path / "sweeps", store)
    end_all(folder)
    where = f"(MLflow experiment '{store.experiment}' at {store.uri})"
    only_sweeps = invoke("sync")
    assert (only_sweeps.exit_code, only_sweeps.output.splitlines()) == (
        0, [f"the tracker has everything of sweeps/fake-0123 {where}"],
    )  # fmt: skip
    assert_recorded_once(client, folder)
    alone = RunFolder.create(tmp_path / "runs", "alone", "0123456789", 0, "name: alone\n")
    alone.write_description(RunDescription({}, {}, None, store))
    both = invoke("sync")
    assert (both.exit_code, both.output.splitlines()) == (
        0,
        [f"the tracker has everything of runs/{alone.name} {where}"],
    )
    assert "nothing to do: no run below runs and sweeps" in invoke("sync").output
    assert invoke("sync", "--sweeps", "nowhere").exit_code == 2
    assert "nothing to do: no run below sweeps waits" in invoke("sync", "--sweeps", "sweeps").output


def test_a_sweep_that_is_not_mirrored_has_nothing_to_complete(tmp_path: Path) -> None:
    make_sweep(tmp_path, None)
    assert folders_to_sync(tmp_path) == []


def test_a_tracker_that_is_away_is_told_for_the_whole_sweep(tmp_path: Path) -> None:
    nowhere = TrackerSettings("http://127.0.0.1:9", None, "e", None, 1.0)  # the discard port: nobody listens
    folder = make_sweep(tmp_path, nowhere)
    end_all(folder)
    state = sync(folder.path)
    assert (state.complete, state.rows_behind) == (False, 10)
    assert "links to the sweep" in state.pending
    assert "127.0.0.1" in str(state.error)
    assert folders_to_sync(tmp_path) == [folder.path]


def invoke(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, store: TrackerSettings) -> SweepOutcome:
    """A whole sweep that MLflow followed; one of its arms is another component, with other parameters."""
    root = tmp_path_factory.mktemp("mirrored sweep")
    file = write_ablation(root, ABLATION.replace("loss_test", "mirrored"))
    plan = load_plan(file, [f"tracking={{name: mlflow, uri: '{store.uri}', flush_seconds: 0.5}}"])
    outcome = run_sweep(plan, file.read_text(), settings(root / "sweeps", slots=1))
    # On a busy machine the mirror may need longer than the sweep waits for it; it goes on by itself.
    assert wait_until(lambda: mirror_state(outcome.folder.record).complete), outcome.mirror
    return outcome


def test_every_child_of_a_real_sweep_has_every_swept_key_and_every_final_metric(
    client: MlflowClient, finished: SweepOutcome
) -> None:
    folder = finished.folder
    assert statuses(client, folder) == ["FINISHED"] * 5
    assert_recorded_once(client, folder)
    children = [run_of(client, trial) for trial in trials_of(folder.record)]
    for child, trial in zip(children, trials_of(folder.record), strict=True):
        result = trial.read_result()
        assert result is not None
        expected = {name: value for name, value in result["metrics"].items() if value is not None}
        assert {name: child.data.metrics[name] for name in expected} == pytest.approx(expected)
    seen = [(child.data.params["loss"], child.data.params["seed"], child.data.tags["arm"]) for child in children]
    assert sorted(seen) == [
        ("l2", "0", "l2"), ("l2", "1", "l2"), ("smooth_l1", "0", "smooth"), ("smooth_l1", "1", "smooth"),
    ]  # fmt: skip
    assert len({frozenset(child.data.metrics) for child in children}) == 1
    assert all(child.data.tags["sweep"] == "mirrored" for child in children)
    assert {child.data.tags["arm"] for child in children if child.data.tags["is_baseline"] == "true"} == {"smooth"}


def test_the_parent_of_a_real_sweep_holds_plan_table_and_figures(client: MlflowClient, finished: SweepOutcome) -> None:
    parent = run_of(client, finished.folder.record)
    assert parent.data.params["plan.arms"] == "smooth, l2"
    assert parent.data.params["plan.swept_keys"] == "loss"
    assert parent.data.params["plan.metric"] == "probe/validation_accuracy"
    assert parent.data.metrics["trials/finished"] == 4
    assert parent.data.metrics["trials/unfinished"] == 0
    kept = {each.path for each in client.list_artifacts(parent.info.run_id, "report")}
    assert kept >= {
        f"report/{name}" for name in ("table.md", "table.tex", "table.csv", "trials.csv", "report.html", "figures")
    }
    figures = {each.path for each in client.list_artifacts(parent.info.run_id, "report/figures")}
    assert figures == {f"report/figures/{file.name}" for file in (finished.folder.report / "figures").iterdir()}


def test_the_trials_of_a_real_sweep_are_called_by_arm_and_seed_which_are_params(
    client: MlflowClient, finished: SweepOutcome
) -> None:
    children = [run_of(client, trial) for trial in trials_of(finished.folder.record)]
    named = {child.info.run_name: (child.data.params["arm"], child.data.params["seed"]) for child in children}
    assert named == {
        "smooth s0": ("smooth", "0"), "smooth s1": ("smooth", "1"), "l2 s0": ("l2", "0"), "l2 s1": ("l2", "1"),
    }  # fmt: skip
    shown = children[0].data.params
    assert shown["monitors.end"].startswith("rankme; alpha_req(")
    assert not [value for value in shown.values() if value.startswith(("[{", '["'))]
    assert shown["masker.target_scale"] == "[0.15, 0.2]"


def test_the_run_of_a_real_sweep_is_described_by_its_table_and_has_the_winners_numbers(
    client: MlflowClient, finished: SweepOutcome
) -> None:
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    parent = run_of(client, finished.folder.record)
    table = (finished.folder.report / "table.md").read_text().strip()
    note = parent.data.tags[MLFLOW_RUN_NOTE]
    assert note.startswith(table[:1000])
    assert len(note) <= 8000
    winner = winner_of(finished.report)
    assert winner is not None
    assert {name: parent.data.metrics[name] for name in winner.numbers} == pytest.approx(dict(winner.numbers))
    assert parent.data.tags["winner"] == winner.words["winner"] in ("smooth", "l2")
    assert parent.data.tags["winner_or_as_good"] == winner.words["winner_or_as_good"]


def test_optuna_knows_metric_intermediate_values_and_mlflow_run_without_a_dump(finished: SweepOutcome) -> None:
    import optuna

    storage = open_storage(finished.folder.journal, None)
    study = optuna.load_study(study_name="mirrored", storage=storage)
    assert study.metric_names == ["probe/validation_accuracy"]
    assert study.user_attrs["mlflow_run_id"] == mlflow_run_id(finished.folder.record)
    assert study.user_attrs["baseline"] == "smooth"
    attributes = [study.user_attrs, *(trial.user_attrs for trial in study.trials)]
    assert all(isinstance(value, str | bool | int | float) for each in attributes for value in each.values())
    assert max(len(str(value)) for each in attributes for value in each.values()) < 300
    for trial in study.trials:
        assert sorted(trial.intermediate_values) == [0, 1, 2, 3]  # the online probe, before training too
        run_id = mlflow_run_id(RunFolder(finished.folder.path / trial.user_attrs["run_folder"]))
        # A trial that was over before the mirror knew has none: Optuna takes no attribute any more.
        assert trial.user_attrs.get("mlflow_run_id", run_id) == run_id


def test_compare_finds_in_mlflow_what_the_report_of_the_sweep_says(finished: SweepOutcome) -> None:
    shown = invoke("compare", finished.folder.path, "--format", "csv")
    assert shown.exit_code == 0, shown.output
    by_parent = invoke("compare", mlflow_run_id(finished.folder.record), "--uri", finished.tracker.split()[-1][:-1],
                       "--format", "csv")  # fmt: skip
    assert by_parent.output == shown.output
    found = {}
    for line in shown.output.splitlines()[1:]:
        arm, seed, metric, value = line.split(",")[:4]
        found[arm, int(seed), metric] = float(value)
    trials = finished.report.trials
    for _, trial in trials.iterrows():
        for metric in ("probe/validation_accuracy", "probe/test_accuracy", "rankme_end"):
            assert found[trial["arm"], trial["seed"], metric] == pytest.approx(trial[metric])


SLOW_ABLATION = ABLATION.replace("loss_test", "killed").replace("[0, 1]", "[0, 1, 2]")


@pytest.mark.slow
def test_kills_of_mirror_workers_and_parent_leave_every_row_once_and_nothing_running(tmp_path: Path) -> None:
    file = write_ablation(tmp_path, SLOW_ABLATION)
    chance = random.Random(3)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [*COMMAND, "sweep", str(file), "training.epochs=60", "probe.every_epochs=10"]
    command += [f"tracking={{name: mlflow, uri: '{uri}', flush_seconds: 0.3}}"]
    command += ["--sweeps", str(tmp_path / "sweeps"), "--slots", "2"]
    for _ in range(3):
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + chance.uniform(15, 30)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(chance.uniform(1, 4))
            kill_a_child(process.pid, chance)
        process.kill()
        process.wait()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "sweeps").iterdir()
    folder = SweepFolder.open(path)
    wait_until(lambda: mirror_state(folder.record).complete)
    assert sync(path).complete
    tracker = folder.record.read_description().tracker
    assert tracker is not None
    client = connect(tracker)
    assert statuses(client, folder) == ["FINISHED"] * 7
    for trial in trials_of(folder.record):
        history = client.get_metric_history(run_of(client, trial).info.run_id, "train/loss")
        logged = [row.step for row in read_metrics(trial.metrics) if row.metrics.get("train/loss") is not None]
        assert [metric.step for metric in history] == logged
    experiment = run_of(client, folder.record).info.experiment_id
    everything = client.search_runs([experiment])
    assert len(everything) == 7
    assert {run.info.status for run in everything} == {"FINISHED"}


def kill_a_child(parent: int, chance: random.Random) -> None:
    """SIGKILL to one child of a process: a worker or the mirror."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if found and chance.random() < 0.4:
            os.kill(int(chance.choice(found)), signal.SIGKILL)


@pytest.mark.slow
def test_a_tracker_that_is_away_during_the_whole_sweep_costs_no_trial_and_sync_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MlflowServer(tmp_path)
    server.kill()
    monkeypatch.setattr(sweep_module, "_TRACKER_SECONDS", 1.0)
    file = write_ablation(tmp_path, ABLATION.replace("[0, 1]", "[0]"))
    uri = f"http://127.0.0.1:{server.port}"
    plan = load_plan(file, [f"tracking={{name: mlflow, uri: '{uri}', flush_seconds: 0.5}}"])
    outcome = run_sweep(plan, file.read_text(), settings(tmp_path / "sweeps", slots=1))
    assert outcome.report.trials["status"].tolist() == ["FINISHED", "FINISHED"]
    assert not outcome.mirror.complete
    server.start()
    try:
        monkeypatch.chdir(tmp_path)
        done = subprocess.run(
            [sys.executable, "-m", "jepa_lab", "sync"], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert wait_until(lambda: mirror_state(outcome.folder.record).complete), done.stdout + done.stderr
        tracker = outcome.folder.record.read_description().tracker
        assert tracker is not None
        client = connect(tracker)
        assert statuses(client, outcome.folder) == ["FINISHED"] * 3
        assert_recorded_once(client, outcome.folder)
    finally:
        server.kill()
