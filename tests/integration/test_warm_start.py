"""`encoder.weights`: both encoders begin with weights from elsewhere, or the run does not begin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_model
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.grid import Grid
from jepa_lab.interop.export import ExportRequest, export_run
from jepa_lab.positions.learned import resample
from jepa_lab.resume import resume_run
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import TINY, write_tiny
from tests.integration.test_cli import refused

SHORT = ("training.epochs=1", "probe.method.c_grid=[0.1]", "probe.additional=[]")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("warm"), TINY)


@pytest.fixture(scope="module")
def parents(file: Path) -> dict[str, RunFolder]:
    def train(position: str) -> RunFolder:
        loaded = load_pipeline(file, (*SHORT, f"encoder.position={position}", "training.epochs=2"))
        return start_run(loaded, file.parent / "runs", []).folder

    return {position: train(position) for position in ("learned", "sincos", "rope")}


def weights(run: RunFolder, step: int | None, encoder: str) -> dict[str, torch.Tensor]:
    model = CheckpointStore(run.checkpoints).load(step).model
    return {name.removeprefix(f"{encoder}."): each for name, each in model.items() if name.startswith(f"{encoder}.")}


@pytest.mark.parametrize("position", ["learned", "sincos", "rope"])
def test_both_encoders_begin_with_the_target_encoder_of_a_run(
    file: Path, parents: dict[str, RunFolder], tmp_path: Path, position: str
) -> None:
    parent = parents[position]
    overrides = (*SHORT, f"encoder.position={position}", f"encoder.weights={parent.path}", "seed=7")
    child = start_run(load_pipeline(file, overrides), tmp_path, []).folder
    expected = weights(parent, None, "target_encoder")
    for encoder in ("context_encoder", "target_encoder"):
        begun = weights(child, 0, encoder)
        assert begun.keys() == expected.keys()
        assert all(torch.equal(begun[name], expected[name]) for name in expected)
    told = json.loads(child.environment.read_text())["encoder_weights"]
    assert told["source"] == str(parent.path)
    assert len(told["sha256"]) == 64
    control = build_model(load_pipeline(file, overrides).pipeline, 1).target_encoder.state_dict()
    assert not torch.equal(control["patch_embed.proj.weight"], expected["patch_embed.proj.weight"])


def test_learned_positions_are_resampled_for_another_image_size(
    file: Path, parents: dict[str, RunFolder], tmp_path: Path
) -> None:
    export_run(parents["learned"], ExportRequest("safetensors"), tmp_path / "export")
    overrides = (*SHORT, "encoder.position=learned", "data.image_size=12", f"encoder.weights={tmp_path / 'export'}")
    child = start_run(load_pipeline(file, overrides), tmp_path / "runs", []).folder
    table = weights(parents["learned"], None, "target_encoder")["position.position_embedding"]
    begun = weights(child, 0, "context_encoder")["position.position_embedding"]
    assert torch.allclose(begun, resample(table, Grid(4, 4), Grid(6, 6)))


def test_a_run_is_resumed_without_the_source(file: Path, parents: dict[str, RunFolder], tmp_path: Path) -> None:
    export_run(parents["sincos"], ExportRequest("safetensors"), tmp_path / "export")
    overrides = (*SHORT, "encoder.position=sincos", f"encoder.weights={tmp_path / 'export'}")
    child = start_run(load_pipeline(file, overrides), tmp_path / "runs", []).folder
    for path in (tmp_path / "export").iterdir():
        path.unlink()
    child.result.unlink()
    assert resume_run(child, None, []).result["status"] == "FINISHED"


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    file: Path, parents: dict[str, RunFolder], tmp_path: Path
) -> None:
    def message(*overrides: str) -> str:
        text = refused("run", file, "--runs", tmp_path / "runs", *SHORT, *overrides)
        assert not (tmp_path / "runs").exists()
        return text

    learned, rope = (f"encoder.weights={parents[name].path}" for name in ("learned", "rope"))
    assert "is not a run, a folder of a model" in message("encoder.weights=nothing")
    assert "use encoder.position=learned" in message(learned, "encoder.position=sincos")
    assert "has no positions that are added" in message(rope, "encoder.position=learned")
    assert "16x1x2 there, 16x2x2 here" in message(learned, "encoder.position=learned", "encoder.size.depth=2")
    assert "encoder.layer_scale" in message(learned, "encoder.position=learned", "encoder.layer_scale=0.1")
