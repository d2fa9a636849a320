"""What tests of whole runs share: reading what a run left, stopping one in the middle."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.pretrain import Pretraining
from tests.integration.pipelines import load_tiny

TOTAL_STEPS = 15  # 120 training images, batches of 24, 3 epochs


def final_weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return CheckpointStore(folder.checkpoints).load().model


def tensor_files(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of each tensor file of the last checkpoint."""
    store = CheckpointStore(folder.checkpoints)
    files = sorted(store.path(store.steps()[-1]).glob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def copy_of(outcome: RunOutcome, folder: Path) -> RunFolder:
    """A run folder that a test may spoil."""
    shutil.copytree(outcome.folder.path, folder / "copy")
    return RunFolder.open(folder / "copy")


def timeless_rows(folder: RunFolder) -> list[tuple[int, dict[str, Any]]]:
    """Rows of metrics without those that measure time or memory."""
    measured = ("train/images_per_second", "train/peak_memory_mib")
    return [
        (row.step, {name: value for name, value in row.metrics.items() if name not in measured})
        for row in read_metrics(folder.metrics)
    ]


def assert_same_run(folder: RunFolder, whole: RunFolder) -> None:
    """A run ended with bitwise the weights of an uninterrupted one, and with its metrics."""
    first, second = final_weights(whole), final_weights(folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert timeless_rows(folder) == timeless_rows(whole)


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def killed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, *overrides: str) -> RunFolder:
    """The tiny run, killed behind a step."""
    take_step = Pretraining.after_step

    def kill(self: Pretraining, step: int, *arguments: Any) -> None:
        if step == kill_at:
            raise Killed
        take_step(self, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "after_step", kill)
        with pytest.raises(Killed):
            start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", ["killed"])
    (path,) = (tmp_path / "runs").iterdir()
    return RunFolder.open(path)


def only_sweep(root: Path) -> SweepFolder:
    """The one sweep in a folder of sweep folders."""
    (path,) = root.iterdir()
    return SweepFolder.open(path)
