"""`jepa-lab attention`: it draws the stored encoder on the run's validation images, and says what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import jepa_lab.attention_picture as attention_module
from jepa_lab.build import build_model, prepare_data
from jepa_lab.composition.start import start_run
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.figures.attention import AttentionView
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import load_tiny
from tests.integration.test_cli import invoke, refused

SHORT = ("encoder.size.depth=2", "training.epochs=1", "probe.method.c_grid=[0.1]", "training.checkpoint_every_steps=3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("attention")
    return start_run(load_tiny(folder, *SHORT), folder / "runs", []).folder


def test_it_writes_a_picture_of_the_run(finished: RunFolder, tmp_path: Path) -> None:
    result = invoke("attention", finished.path, "--out", tmp_path / "out.png", "--images", "2")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'out.png'}" in result.output
    assert (tmp_path / "out.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "step", "encoder", "layer"),
    [((), 5, "target", 2), (("--step", "3", "--encoder", "context", "--layer", "1"), 3, "context", 1)],
)
def test_the_weights_are_those_of_the_checkpoint_encoder_and_block_that_are_asked_for(
    finished: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    step: int,
    encoder: str,
    layer: int,
) -> None:
    drawn = {}

    def keep(images: torch.Tensor, weights: torch.Tensor, view: AttentionView, out: Path) -> None:
        drawn.update(images=images, weights=weights, title=view.title)

    monkeypatch.setattr(attention_module, "draw_attention", keep)
    assert invoke("attention", finished.path, "--out", tmp_path / "x.png", "--images", "3", *arguments).exit_code == 0
    pipeline = load_tiny(tmp_path, *SHORT).pipeline
    data, model = prepare_data(pipeline), build_model(pipeline, 1)
    model.load_state_dict(CheckpointStore(finished.checkpoints).load(step).model)
    network = getattr(model, f"{encoder}_encoder")
    expected = network.attention_weights(normalize(to_float(drawn["images"]), data.mean, data.std), layer)
    assert torch.allclose(drawn["weights"], expected, atol=1e-6)
    assert f"block {layer} of 2 of the {encoder} encoder" in drawn["title"]
    assert f"step {step}" in drawn["title"]
    seen = {image.numpy().tobytes() for image in data.validation.images}
    assert len(drawn["images"]) == 3
    assert all(image.numpy().tobytes() in seen for image in drawn["images"])


def test_what_is_not_there_is_refused(finished: RunFolder, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "x.png")
    assert "blocks, 1 to 2, got 3" in refused("attention", finished.path, *out, "--layer", "3")
    assert "4x4 grid" in refused("attention", finished.path, *out, "--query", "0", "4")
    assert "holds no checkpoint of step 99; it holds those of step 0, 3, 5" in refused(
        "attention", finished.path, *out, "--step", "99"
    )
    assert "run folder" in refused("attention", tmp_path, *out)
    assert not (tmp_path / "x.png").exists()
