"""The command that performs one trial, given by any engine, any number of times."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jepa_lab.composition.stopping import locked
from jepa_lab.config.loading import dump_pipeline
from jepa_lab.resume import find_runs, run_stem
from jepa_lab.sweeps import worker
from jepa_lab.sweeps.agreement import Hello, broken_locks, expected_here
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.tasks import Expected, Reply, Task
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import load_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return SweepFolder.open_or_create(tmp_path_factory.mktemp("worker"), "s-1", "a: 1\n", {"name": "s"})


def task_of(folder: SweepFolder, seed: int, *overrides: str, expected: Expected | None = None) -> Task:
    loaded = load_tiny(folder.path, f"seed={seed}", "training.epochs=1", *overrides)
    config = folder.configs / f"arm-{seed:04d}.yaml"
    config.write_text(dump_pipeline(loaded.pipeline))
    claim = folder.claim(run_stem(loaded.pipeline))
    runs = folder.trials.resolve()
    return Task(seed, config.stem, config.resolve(), runs, claim, {}, {}, folder=folder.path, expected=expected)


@pytest.fixture(scope="module")
def done(folder: SweepFolder) -> Task:
    """A task that has been performed."""
    task = task_of(folder, 0)
    assert worker.perform(task) == Reply(0, "finished", "")
    return task


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_CLAIM_SECONDS", 0.05)


def run_of(folder: SweepFolder, task: Task) -> RunFolder:
    """The only run folder of a task."""
    (run,) = find_runs(folder.trials, load_tiny(folder.path, f"seed={task.number}", "training.epochs=1").pipeline)
    return run


def files(run: RunFolder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}


def test_a_finished_trial_is_answered_and_not_trained_again(folder: SweepFolder, done: Task) -> None:
    before = files(run_of(folder, done))
    assert worker.perform(done) == Reply(0, "finished", "")
    assert files(run_of(folder, done)) == before


def test_an_unfinished_trial_is_resumed_in_its_folder(folder: SweepFolder, done: Task) -> None:
    run = run_of(folder, done)
    found = run.read_result()
    run.remove_result()
    assert worker.perform(done) == Reply(0, "finished", "")
    again = run_of(folder, done).read_result()
    assert found is not None
    assert again is not None
    accuracy = "probe/validation_accuracy"
    assert again["metrics"][accuracy] == found["metrics"][accuracy]
    assert "training from step 5 to 5" in run.log.read_text()  # nothing was trained again


@pytest.mark.usefixtures("impatient")
def test_a_trial_that_another_worker_has_claimed_is_busy(folder: SweepFolder) -> None:
    task = task_of(folder, 1)
    with FileLock(task.claim, "the trial") as lock:
        lock.acquire(0)
        reply = worker.perform(task)
    assert reply.outcome == "busy"
    assert str(task.claim) in reply.message
    assert not list(folder.trials.glob("*-s1"))


@pytest.mark.usefixtures("impatient")
def test_a_run_that_its_orphan_still_trains_is_busy(folder: SweepFolder, done: Task) -> None:
    run = run_of(folder, done)
    result = run.path / "result.json"
    kept = result.read_bytes()
    result.unlink()
    with locked(run):  # an earlier jepa-lab, which had no claims, or a run that was resumed by hand
        assert worker.perform(done).outcome == "busy"
    result.write_bytes(kept)


def test_the_command_writes_what_it_saw_and_how_it_ended(folder: SweepFolder, done: Task, tmp_path: Path) -> None:
    file, reply = tmp_path / "a task", tmp_path / "reply"
    file.write_text(replace(done, expected=expected_here(folder)).to_json())
    command = [sys.executable, "-m", "jepa_lab.sweeps.worker", "--task", str(file), "--reply", str(reply)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Reply.from_json(reply.read_text()) == Reply(0, "finished", "")
    hello = Hello.read(reply)
    assert hello is not None
    assert (hello.host, hello.sees_lock) == (socket.gethostname(), False)


def test_a_worker_whose_starter_is_gone_saves_its_state_and_leaves_no_reply(
    folder: SweepFolder, tmp_path: Path
) -> None:
    file, reply = tmp_path / "task", tmp_path / "reply"
    file.write_text(task_of(folder, 3, "training.epochs=20000").to_json())
    command = [sys.executable, "-m", "jepa_lab.sweeps.worker", "--task", str(file), "--reply", str(reply)]
    worker_ = subprocess.Popen([*command, "--end-with-stdin"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size for path in folder.trials.glob("*-s3/metrics.jsonl")):
            assert worker_.poll() is None, reply.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert worker_.stdin is not None
        worker_.stdin.close()
        assert worker_.wait(60) == 128 + signal.SIGTERM
    finally:
        worker_.kill()
        worker_.wait()
    assert list(folder.trials.glob("*-s3/checkpoints/*"))
    assert not reply.exists()


def test_a_worker_that_does_not_see_where_the_sweep_was_started_refuses(done: Task, tmp_path: Path) -> None:
    reply = worker.perform(replace(done, folder=tmp_path / "on another machine"))
    assert reply.outcome == "refused"
    assert f"{socket.gethostname()} does not see the folder {tmp_path}" in reply.message


def test_a_task_that_cannot_be_read_ends_with_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere.task"
    assert worker.main(["--task", str(missing), "--reply", str(tmp_path / "reply")]) == 66
    assert f"the task {missing} cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "reply").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"folder": "/nowhere/s-1"}, "does not see the sweep's folder /nowhere/s-1, which is on head"),
        ({"plan": "0" * 64}, "is not the one on head: they are two folders of the same path"),
        ({"version": "0.0.1"}, "the sweep was started with 0.0.1"),
        ({"source": "f" * 64}, "(source ffffffff) on head"),
    ],
)
def test_a_worker_that_sees_something_else_refuses_and_names_it(
    folder: SweepFolder, change: dict[str, str], named: str
) -> None:
    expected = replace(expected_here(folder), host="head", **change)
    reply = worker.perform(task_of(folder, 2, expected=expected))
    assert reply.outcome == "refused"
    assert named in reply.message
    assert not list(folder.trials.glob("*-s2"))


def test_locks_that_do_not_reach_another_machine_are_named(folder: SweepFolder) -> None:
    message = broken_locks(Hello("node7", 1, sees_lock=False), folder)
    assert message.startswith(f"node7 does not see that {folder.path / 'sweep.lock'} is locked")
    assert "nolock" in message
