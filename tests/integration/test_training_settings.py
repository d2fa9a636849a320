"""Every field of the `training` section changes what it says it changes in a run, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_lab.composition.start import start_run
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore
from jepa_lab.training.pretrain import Pretraining
from jepa_lab.training.settings import TrainingSettings
from jepa_lab.training.step import TrainingStep
from tests.integration.pipelines import load_tiny

# Field -> a value that differs from the tiny run's, and what follows it.
CHANGES: dict[str, tuple[Any, set[str]]] = {
    "epochs": (2, {"steps", "logged", "saved"}),
    "batch_size": (40, {"steps", "images", "forward_images", "logged", "saved"}),
    "accumulation_steps": (3, {"forward_images"}),
    "gradient_clip_norm": (1e-3, {"gradient_norm"}),
    "precision": ("bf16", {"precision"}),
    "compile": ("on", {"compiled"}),
    "num_threads": (2, {"threads"}),
    "log_every_steps": (1, {"logged"}),
    "checkpoint_every_steps": (2, {"saved"}),
}
ELSEWHERE = {
    "capture": (
        "integration/test_captured_run.py",
        "test_capturing_without_cuda_is_refused_before_anything_is_written",
    ),
    "device": ("integration/test_run.py", "test_unusable_data_and_devices_are_told_with_the_place_that_chose_them"),
    "stop_on_collapse": ("integration/test_run.py", "test_a_forced_collapse_is_marked_and_can_stop_the_run"),
    "max_skipped_batches": (
        "integration/test_run.py",
        "test_one_more_batch_in_a_row_than_may_be_skipped_ends_the_run_with_3",
    ),
    "activation_checkpointing": ("unit/models/test_recompute.py", "test_a_block_keeps_its_input_alone"),
}


class Trained(BaseException):
    """Ends a run behind its last step: what follows is not about training."""


def observe(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, Any]:
    """What a run of one epoch does, its numbers aside."""
    folder.mkdir()
    seen: dict[str, list[Any]] = {"images": [], "forward_images": [], "gradient_norm": [], "saved": [], "threads": []}
    seen["compiled"] = []
    take_step, save, train = TrainingStep.__call__, CheckpointStore.save, Pretraining.run

    def watched_step(self: TrainingStep, images: torch.Tensor, *rest: Any) -> Any:
        seen["images"].append(len(images))
        hook = self.model.register_forward_pre_hook(lambda model, args: seen["forward_images"].append(len(args[0])))
        self.optimizer.register_step_pre_hook(note_norm)
        try:
            return take_step(self, images, *rest)
        finally:
            hook.remove()

    def note_norm(optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen["gradient_norm"].append(torch.nn.utils.get_total_norm(gradients).item() <= 1.001e-3)

    def watched_save(self: CheckpointStore, checkpoint: Checkpoint) -> Path:
        seen["saved"].append(checkpoint.run.step)
        return save(self, checkpoint)

    def train_only(self: Pretraining) -> None:
        train(self)
        raise Trained

    def compile_nothing(model: torch.nn.Module) -> torch.nn.Module:
        seen["compiled"].append(True)
        return model

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", watched_step)
        patch.setattr(CheckpointStore, "save", watched_save)
        patch.setattr(torch, "compile", compile_nothing)
        patch.setattr(torch, "set_num_threads", seen["threads"].append)
        patch.setattr(Pretraining, "run", train_only)
        loaded = load_tiny(folder, "training.epochs=1", "probe.every_epochs=100", *overrides)
        with pytest.raises(Trained):
            start_run(loaded, folder / "runs", ["observed"])
    (run,) = (folder / "runs").iterdir()
    last = CheckpointStore(run / "checkpoints").load().run
    rows = [row.step for row in read_metrics(run / "metrics.jsonl") if "train/loss" in row.metrics]
    once = {name: sorted(set(values)) for name, values in seen.items() if name != "saved"}
    return {**once, "saved": seen["saved"], "steps": last.step, "precision": last.precision, "logged": rows}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        return observe(tmp_path_factory.mktemp("usual") / "run", patch)


def test_every_training_setting_is_tested() -> None:
    assert set(CHANGES) | set(ELSEWHERE) == set(TrainingSettings.model_fields)
    tests = Path(__file__).parents[1]
    assert all(f"def {name}(" in (tests / file).read_text() for file, name in ELSEWHERE.values())


@pytest.mark.parametrize("field", CHANGES)
def test_a_training_setting_changes_what_it_says_and_nothing_else(
    field: str, usual: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, expected = CHANGES[field]
    changed = observe(tmp_path / "run", monkeypatch, f"training.{field}={value}")
    assert {name for name in usual if usual[name] != changed[name]} == expected


def test_the_observed_run_is_as_its_settings_say(usual: dict[str, Any]) -> None:
    assert usual == {
        "images": [24],
        "forward_images": [24],
        "gradient_norm": [False],
        "threads": [1],
        "compiled": [],
        "saved": [0, 4, 5],
        "steps": 5,
        "precision": "fp32",
        "logged": [2, 4, 5],
    }
