"""`jepa-lab probe --encoder SOURCE PIPELINE`: any encoder under our protocol, with its own controls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.interop.export import ExportRequest, export_run
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import TINY, write_tiny
from tests.integration.test_cli import invoke, refused

SHORT = ("training.epochs=1", "encoder.position=learned")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("probed"), TINY)


@pytest.fixture(scope="module")
def run(file: Path) -> RunFolder:
    return start_run(load_pipeline(file, SHORT), file.parent / "runs", []).folder


def probed(file: Path, source: Path | str, out: Path, *overrides: str) -> dict[str, dict[str, float]]:
    result = invoke("probe", "--encoder", source, file, *overrides, "--out", out)
    assert result.exit_code == 0, result.output
    return json.loads(out.read_text())


def test_a_run_has_the_accuracies_that_its_own_probe_found(file: Path, run: RunFolder, tmp_path: Path) -> None:
    own = run.read_result()
    assert own is not None
    metrics = probed(file, run.path, tmp_path / "out.json")["metrics"]
    for name in ("probe/validation_accuracy", "probe/knn_validation_accuracy", "raw_pixels/validation_accuracy"):
        assert metrics[name] == pytest.approx(own["metrics"][name]), name
    assert metrics["probe/test_accuracy"] is None
    assert metrics["random_encoder/validation_accuracy"] is not None


def test_an_export_at_another_image_size_is_probed_with_resampled_positions(
    file: Path, run: RunFolder, tmp_path: Path
) -> None:
    export_run(run, ExportRequest("safetensors"), tmp_path / "export")
    result = invoke("probe", "--encoder", tmp_path / "export", file, "data.image_size=12")
    assert result.exit_code == 0, result.output
    assert "resampled from a grid of 4x4 patches to one of 6x6" in result.output


def test_what_does_not_fit_is_refused(file: Path, run: RunFolder, tmp_path: Path) -> None:
    export_run(run, ExportRequest("safetensors"), tmp_path / "export")
    source = ("probe", "--encoder", tmp_path / "export", file)
    assert "with --encoder leave it out" in refused(*source, "--step", "3")
    assert "go with --encoder" in refused("probe", run.path, "--out", tmp_path / "out.json")
    assert "patches of 2 px" in refused(*source, "probe.image_size=15", "encoder.patch_size=5", "data.image_size=10")
    levels = ("hierarchy.num_levels=2", "probe.levels=[2]")
    assert "reads levels of a pyramid" in refused(*source, *levels)
    weights = {"patch_embed.proj.weight": torch.zeros(16, 3, 2, 2)}
    save_file(weights, tmp_path / "no.safetensors")
    assert "pos_embed, norm.weight is missing" in refused("probe", "--encoder", tmp_path / "no.safetensors", file)
    assert "no such file" in refused("probe", "--encoder", tmp_path / "no.pth", file)
