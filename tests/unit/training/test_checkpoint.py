"""Checkpoints: whole or not there, verified, and only those kept that should be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from jepa_lab.errors import RunFolderError, RunStopped
from jepa_lab.tracking.records import read_record, write_record
from jepa_lab.training import tensor_file
from jepa_lab.training.checkpoint import FORMAT_VERSION, Checkpoint, CheckpointStore, RunState


def build_checkpoint(step: int, best_step: int | None = None) -> Checkpoint:
    tensors = {"weight": torch.full((3,), float(step))}
    run = RunState(
        step, 0, step, 100, "0" * 64, 1, "cpu", "fp32", 0, "digest", "name: tiny", {"seen": [1]}, best_step=best_step
    )
    return Checkpoint(tensors, {"weight/step": torch.tensor(1.0)}, {"loss_sum": torch.tensor(2.0)}, run)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(build_checkpoint(7))
    loaded = store.load()
    assert loaded.run == build_checkpoint(7).run
    assert torch.equal(loaded.model["weight"], torch.full((3,), 7.0))
    assert torch.equal(loaded.state["loss_sum"], torch.tensor(2.0))


def test_a_checkpoint_whose_files_the_library_wrote_with_shuffled_metadata_loads(tmp_path: Path) -> None:
    folder = CheckpointStore(tmp_path).save(build_checkpoint(7))
    old = {"format_version": "2", "format": "jepa-lab tensors"}
    content = read_record(folder / "state.json", "checkpoint", FORMAT_VERSION)
    for name in content["files"]:
        save_file(load_file(folder / name), folder / name, old)
        content["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    write_record(folder / "state.json", "checkpoint", FORMAT_VERSION, content)
    loaded = CheckpointStore(tmp_path).load()
    assert torch.equal(loaded.model["weight"], torch.full((3,), 7.0))
    assert loaded.model_metadata == {}


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (10, 20, 30, 40):
        store.save(build_checkpoint(step, best_step=10))
    assert store.steps() == [10, 30, 40]
    store.save(build_checkpoint(50, best_step=40))
    assert store.steps() == [40, 50]


def test_a_failed_write_leaves_the_earlier_checkpoints_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(build_checkpoint(10))

    def full(*arguments: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensor_file, "save_file", full)
    with pytest.raises(RunStopped, match="space"):
        store.save(build_checkpoint(20))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    assert store.load().run.step == 10


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "remove"])
def test_damage_is_refused_and_named(tmp_path: Path, file: str, damage: str) -> None:
    folder = CheckpointStore(tmp_path).save(build_checkpoint(5))
    path = folder / file
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        content[len(content) // 2] ^= 0x01
        path.write_bytes(content)
    with pytest.raises(RunFolderError, match="step-00000005"):
        CheckpointStore(tmp_path).load()


def test_an_unknown_format_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = CheckpointStore(tmp_path).save(build_checkpoint(5))
    content = read_record(folder / "state.json", "checkpoint", FORMAT_VERSION)
    write_record(folder / "state.json", "checkpoint", 99, content)
    with pytest.raises(RunFolderError, match="version 99"):
        CheckpointStore(tmp_path).load()


def test_damaged_checkpoints_are_passed_over_named_and_set_aside(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (10, 20, 30):
        store.save(build_checkpoint(step, best_step=10))
    for step in (20, 30):
        (store.path(step) / "model.safetensors").write_bytes(b"")
    checkpoint, problems = store.load_last_good(lambda checkpoint: None)
    assert checkpoint is not None
    assert checkpoint.run.step == 10
    assert [name in problem for name, problem in zip(("step-00000030", "step-00000020"), problems, strict=True)]
    assert store.steps() == [10]
    assert (tmp_path / "damaged-step-00000030").is_dir()


def test_a_checkpoint_that_does_not_fit_is_passed_over_and_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (10, 20):
        store.save(build_checkpoint(step))
    checkpoint, problems = store.load_last_good(lambda found: "too long" if found.run.step == 20 else None)
    assert checkpoint is not None
    assert (checkpoint.run.step, problems, store.steps()) == (10, ["too long"], [10, 20])
    with pytest.raises(RunFolderError, match=r"no checkpoint in .* can be used: bad"):
        store.load_last_good(lambda found: "bad")
    assert CheckpointStore(tmp_path / "none").load_last_good(lambda found: None) == (None, [])


def test_what_a_killed_process_left_behind_is_removed_by_the_next_save(tmp_path: Path) -> None:
    for name in (".partial-step-00000004", ".old-step-00000002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    CheckpointStore(tmp_path).save(build_checkpoint(5))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_what_is_not_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for name in ("step-junk", "step-00000099.bak", "step-7"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000042").write_text("a file")
    for step in (1, 2, 3):
        store.save(build_checkpoint(step))
    assert store.steps() == [2, 3]
    assert store.load().run.step == 3
    assert {path.name for path in tmp_path.iterdir()} >= {"step-junk", "step-00000099.bak", "step-7"}


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no checkpoint"):
        CheckpointStore(tmp_path).load()
