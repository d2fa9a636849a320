"""SIGTERM and Ctrl-C: a checkpoint at the next step, the right exit code, and a run that goes on as if nothing was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jepa_lab.composition.start import start_run
from jepa_lab.errors import RunInterrupted, RunTerminated
from jepa_lab.evaluation import OnlineEvaluation
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.resume import find_unfinished, resume_run
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore
from jepa_lab.training.pretrain import Pretraining
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run

RARELY = ["training.checkpoint_every_steps=1000", "probe.every_epochs=1000"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("whole")
    return start_run(load_tiny(folder, *RARELY), folder / "runs", ["whole"]).folder


def send_at_step(patch: pytest.MonkeyPatch, step: int, *numbers: signal.Signals) -> None:
    """Send signals to this process when a step has been taken."""
    take_step = Pretraining.after_step

    def after_step(self: Pretraining, at: int, *arguments: Any) -> None:
        if at == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        take_step(self, at, *arguments)

    patch.setattr(Pretraining, "after_step", after_step)


def only_run(folder: Path) -> RunFolder:
    (path,) = (folder / "runs").iterdir()
    return RunFolder.open(path)


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (signal.SIGTERM, RunTerminated, 143),
        (signal.SIGHUP, RunTerminated, 129),
        (signal.SIGINT, RunInterrupted, 130),
    ],
)
def test_a_signal_ends_the_run_with_a_checkpoint_of_the_next_step_from_which_it_goes_on_bitwise(
    whole: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    error: type[RunInterrupted],
    code: int,
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        send_at_step(patch, 7, number)
        with pytest.raises(
            error, match=r"last checkpoint is at step 7\); resume it with `jepa-lab run --res"
        ) as caught:
            start_run(load_tiny(tmp_path, *RARELY), tmp_path / "runs", [])
    assert caught.value.exit_code == code
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    folder = only_run(tmp_path)
    result = folder.read_result()
    assert result is not None
    assert (result["status"], result["error"]) == ("KILLED", number.name)
    assert result["images"]["in_words"]
    assert len(result["channel_mean"]) == len(result["channel_std"]) > 0
    assert CheckpointStore(folder.checkpoints).steps() == [0, 7]
    resume_run(folder, None, [])
    assert_same_run(folder, whole)


def test_a_second_ctrl_c_leaves_at_once_without_a_checkpoint(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        send_at_step(patch, 7, signal.SIGINT, signal.SIGINT)
        with pytest.raises(RunInterrupted, match="checkpoint is at step 0"):
            start_run(load_tiny(tmp_path, *RARELY), tmp_path / "runs", [])
    folder = only_run(tmp_path)
    resume_run(folder, None, [])
    assert_same_run(folder, whole)


def stop_and_clean_up(first: signal.Signals, *later: signal.Signals) -> None:
    """Print which signals came during the cleaning up after a first one."""
    done = []
    try:
        os.kill(os.getpid(), first)
    finally:
        for number in later:
            os.kill(os.getpid(), number)
            done.append(number.name)
        print(*done)


def test_a_signal_that_is_repeated_does_not_disturb_the_end_that_the_first_one_has_begun(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A closing terminal sends SIGHUP twice, by the kernel and by the shell."""
    with StopSignals(), pytest.raises(StopRequested, match="SIGHUP"):
        stop_and_clean_up(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)
    assert capsys.readouterr().out == "SIGHUP SIGTERM\n"


def test_a_second_ctrl_c_ends_at_once_what_the_first_signal_has_begun() -> None:
    with StopSignals(), pytest.raises(StopRequested, match="SIGINT"):
        stop_and_clean_up(signal.SIGTERM, signal.SIGINT)


def test_sigterm_that_is_repeated_still_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send_at_step(monkeypatch, 7, signal.SIGTERM, signal.SIGTERM, signal.SIGTERM)
    with pytest.raises(RunTerminated, match="step 7"):
        start_run(load_tiny(tmp_path, *RARELY), tmp_path / "runs", [])


def test_a_second_ctrl_c_in_the_middle_of_a_checkpoint_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CheckpointStore.save

    def interrupted(self: CheckpointStore, checkpoint: Checkpoint) -> Path:
        if checkpoint.run.step == 8:
            monkeypatch.setattr("jepa_lab.training.checkpoint.write_record", twice)
        return save(self, checkpoint)

    def twice(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(CheckpointStore, "save", interrupted)
    with pytest.raises(RunInterrupted, match="step 5"):
        start_run(load_tiny(tmp_path), tmp_path / "runs", [])
    folder = only_run(tmp_path)
    assert {path.name for path in folder.checkpoints.iterdir()} >= {"step-00000004", "step-00000005"}
    assert not list(folder.checkpoints.glob(".partial*"))
    CheckpointStore(folder.checkpoints).load()


@pytest.mark.parametrize("after_observing", [False, True])
def test_a_signal_in_an_evaluation_ends_it_and_the_resumed_run_evaluates_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_observing: bool
) -> None:
    whole = start_run(load_tiny(tmp_path), tmp_path / "whole", []).folder
    evaluate, calls = OnlineEvaluation.evaluate, []

    def interrupted(self: OnlineEvaluation) -> Any:
        calls.append(1)
        if len(calls) == 3:  # at steps 0, 5 and 10
            found = evaluate(self) if after_observing else None
            os.kill(os.getpid(), signal.SIGTERM)
            return found
        return evaluate(self)

    with monkeypatch.context() as patch:
        patch.setattr(OnlineEvaluation, "evaluate", interrupted)
        with pytest.raises(RunTerminated, match="step 10"):
            start_run(load_tiny(tmp_path), tmp_path / "runs", [])
    folder = only_run(tmp_path)
    assert not any("monitor/rankme" in row.metrics for row in read_metrics(folder.metrics) if row.step == 10)
    resume_run(folder, None, [])
    assert_same_run(folder, whole)
    first, second = (CheckpointStore(run.checkpoints).load().run for run in (whole, folder))
    assert first.monitor == second.monitor


def test_a_signal_before_training_ends_with_its_code_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("jepa_lab.composition.data.load_data", stop)
    with pytest.raises(RunTerminated, match="stopped by SIGTERM before training started"):
        start_run(load_tiny(tmp_path), tmp_path / "runs", [])
    assert not (tmp_path / "runs").exists()


def test_signals_wait_where_they_are_held_and_are_raised_elsewhere() -> None:
    with StopSignals() as stop:
        with stop.held():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.received == signal.SIGTERM
            with pytest.raises(StopRequested), stop.released():
                pytest.fail("a waiting signal must be raised on entry")
        with pytest.raises(StopRequested, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_installed() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [handler]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_exits_with_the_code_of_the_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    load_tiny(tmp_path)
    overrides = ["training.epochs=2000", *RARELY]
    command = [sys.executable, "-m", "jepa_lab", "run", str(tmp_path / "tiny.yaml"), *overrides]
    process = subprocess.Popen(
        [*command, "--runs", str(tmp_path / "runs")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(row.step >= 20 for file in (tmp_path / "runs").glob("*/metrics.jsonl") for row in read_metrics(file)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    folder = only_run(tmp_path)
    assert CheckpointStore(folder.checkpoints).steps()[-1] >= 20


def test_sigterm_before_anything_is_loaded_ends_with_its_code() -> None:
    code = (
        "import os, signal; from jepa_lab import cli; "
        "cli.main.commands['schema'].callback = lambda **options: os.kill(os.getpid(), signal.SIGTERM); "
        "cli.main(['schema'])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 143


def test_resume_auto_finds_the_newest_unfinished_run_of_the_same_pipeline_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, runs = load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs"
    assert find_unfinished(runs, loaded.pipeline) is None
    finished = start_run(loaded, runs, []).folder
    assert find_unfinished(runs, loaded.pipeline) is None
    with monkeypatch.context() as patch:
        for at in (2, 3):
            with patch.context() as inner:
                send_at_step(inner, at, signal.SIGINT)
                with pytest.raises(RunInterrupted):
                    start_run(loaded, runs, [])
        send_at_step(patch, 2, signal.SIGINT)
        for other in ("seed=1", "seed=10", "loss=l2"):
            with pytest.raises(RunInterrupted):
                start_run(load_tiny(tmp_path, "training.epochs=1", other), runs, [])
    found = find_unfinished(runs, loaded.pipeline)
    assert found is not None
    assert found.path.name == f"{finished.path.name}-3"
    seeded = find_unfinished(runs, load_tiny(tmp_path, "training.epochs=1", "seed=1").pipeline)
    assert seeded is not None
    assert seeded.path.name.endswith("-s1")
    resume_run(found, loaded.pipeline, [])
    assert_same_run(found, finished)
    second = find_unfinished(runs, loaded.pipeline)
    assert second is not None
    assert second.path.name.endswith("-s0-2")
