"""Runs with drop path: what is dropped in training, and never outside it; resuming."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.resume import resume_run
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run, killed_run, timeless_rows

DEEP = ("encoder.size.depth=2", "probe.method.c_grid=[0.1]", "training.log_every_steps=1")
DROPPING = (*DEEP, "encoder.drop_path_rate=0.5")


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    folder = tmp_path_factory.mktemp("dropping")
    return start_run(load_tiny(folder, *DROPPING), folder / "runs", [])


def test_training_drops_and_the_validation_loss_monitors_and_probe_do_not(dropping: RunOutcome, tmp_path: Path) -> None:
    plain = start_run(load_tiny(tmp_path, *DEEP), tmp_path / "runs", []).folder
    first, first_plain = timeless_rows(dropping.folder), timeless_rows(plain)
    assert first[0] == first_plain[0]  # the evaluation of the untrained model, which is the same
    assert "validation/loss" in first[0][1]
    assert "probe/online_validation_accuracy" in first[0][1]
    norm = "train/encoder_gradient_norm"  # the first loss hardly feels the context, whose gradients do
    assert abs(first[1][1][norm] / first_plain[1][1][norm] - 1) > 0.01
    assert "drop_path_generator" not in CheckpointStore(plain.checkpoints).load().state
    assert "drop_path_generator" in CheckpointStore(dropping.folder.checkpoints).load().state


@pytest.mark.parametrize("kill_at", [3, 10])
def test_a_resumed_run_drops_what_an_uninterrupted_one_would(
    dropping: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    folder = killed_run(tmp_path, monkeypatch, kill_at, *DROPPING)
    resume_run(folder, None, [])
    assert_same_run(folder, dropping.folder)
