"""`jepa-lab run FILE --from RUN`: a new run continues from the state of another one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import jepa_lab.composition.work as work_module
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import JepaLabError, RunFolderError
from jepa_lab.parent import choose_parent, read_parent
from jepa_lab.resume import resume_run
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import TINY, write_tiny
from tests.integration.test_cli import invoke, refused

CONSTANT = (
    "probe.method.c_grid=[0.1]",
    "probe.additional=[]",
    "ema_momentum={name: constant, value: 0.99}",
    "optimizer={learning_rate: 1e-3, start_learning_rate: 1e-3, final_learning_rate: 1e-3, warmup_fraction: 0}",
)
"""Schedules that do not depend on the length of the run."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("continued"), TINY)


@pytest.fixture(scope="module")
def short(file: Path) -> RunFolder:
    return start_run(load_pipeline(file, (*CONSTANT, "training.epochs=2")), file.parent / "runs", []).folder


def last_weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return CheckpointStore(run.checkpoints).load().model


def only_run(root: Path) -> RunFolder:
    (path,) = root.iterdir()
    return RunFolder.open(path)


def test_where_schedules_are_constant_it_ends_as_one_long_run(file: Path, short: RunFolder, tmp_path: Path) -> None:
    long = start_run(load_pipeline(file, (*CONSTANT, "training.epochs=4")), tmp_path / "long", []).folder
    result = invoke("run", "--from", short.path, "training.epochs=4", "--runs", tmp_path / "child")
    assert result.exit_code == 0, result.output
    child = only_run(tmp_path / "child")
    expected = last_weights(long)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in last_weights(child).items())
    assert read_metrics(child.metrics)[0].step == CheckpointStore(short.checkpoints).load().run.step
    assert child.read_description().tags["parent_run"] == short.name
    assert "parent_run" not in long.read_description().tags


def test_schedules_are_those_of_the_new_length_read_at_that_step(file: Path, short: RunFolder, tmp_path: Path) -> None:
    decaying = ("optimizer.final_learning_rate=1e-6", "training.epochs=4")
    long = start_run(load_pipeline(file, (*CONSTANT, *decaying)), tmp_path / "long", []).folder
    loaded = load_pipeline(short.config, decaying)
    parent = choose_parent(short, loaded, restart_schedules=False)
    child = start_run(loaded, tmp_path / "child", [], parent=parent).folder
    rates, found = (
        {
            row.step: row.metrics["train/learning_rate"]
            for row in read_metrics(run.metrics)
            if "train/learning_rate" in row.metrics
        }
        for run in (long, child)
    )
    assert found
    assert found == {step: rate for step, rate in rates.items() if step >= min(found)}


def test_schedules_may_start_anew(file: Path, short: RunFolder, tmp_path: Path) -> None:
    whole = ("seed=3", "training.epochs=1", "training.checkpoint_every_steps=100")  # the first checkpoint is kept
    result = invoke("run", file, "--from", short.path, "--restart-schedules", *CONSTANT, *whole, "--runs", tmp_path)
    assert result.exit_code == 0, result.output
    child = only_run(tmp_path)
    first, parent = CheckpointStore(child.checkpoints).load(0), CheckpointStore(short.checkpoints).load()
    assert all(torch.equal(tensor, parent.model[name]) for name, tensor in first.model.items())
    assert first.optimizer.keys() == parent.optimizer.keys()
    assert all(torch.equal(tensor, parent.optimizer[name]) for name, tensor in first.optimizer.items())
    assert read_metrics(child.metrics)[0].step == 0


def test_a_child_that_is_killed_before_its_first_checkpoint_still_begins_with_its_parent(
    file: Path, short: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_pipeline(short.config, ("training.epochs=4",))
    parent = choose_parent(short, loaded, restart_schedules=False)
    expected = last_weights(start_run(loaded, tmp_path / "whole", [], parent=parent).folder)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work_module.Work, "_build_pretraining", killed)
        with pytest.raises(JepaLabError, match="stopped by SIGINT"):
            start_run(loaded, tmp_path / "killed", [], parent=parent)
    child = only_run(tmp_path / "killed")
    assert CheckpointStore(child.checkpoints).steps() == []
    assert read_parent(child) == parent
    resume_run(child, None, [])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in last_weights(child).items())


def test_what_cannot_be_continued_is_refused(file: Path, short: RunFolder, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        text = refused("run", file, *CONSTANT, "--runs", tmp_path / "runs", *arguments)
        assert not (tmp_path / "runs").exists()
        return text

    start = ("--from", short.path)
    assert "encoder.size.depth cannot change on the way" in message(*start, "encoder.size.depth=2")
    assert "with --restart-schedules data" in message(*start, "training.batch_size=12", "training.epochs=4")
    assert "ends at step 10, and" in message(*start, "training.epochs=2")
    assert "goes with --from" in message("--restart-schedules")
    assert "leave one of them out" in message(*start, "--resume", "auto")
    gone = tmp_path / "gone"
    shutil.copytree(short.path, gone)
    loaded = load_pipeline(gone / "config.yaml", ("training.epochs=4",))
    parent = choose_parent(RunFolder.open(gone), loaded, restart_schedules=False)
    shutil.rmtree(gone)
    with pytest.raises(RunFolderError, match="no longer the run that this one continues"):
        start_run(loaded, tmp_path / "child", [], parent=parent)
