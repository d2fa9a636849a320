"""`jepa-lab export`: other libraries compute our features from the folder alone, or nothing is written."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_lab.build import build_model
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.interop.exports import EXPORT_FORMATS
from jepa_lab.interop.exports.timm import TimmFormat
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import TINY, write_tiny
from tests.integration.test_cli import invoke, refused

SHORT = ("encoder.size.depth=2", "training.epochs=1", "probe.method.c_grid=[0.1]", "probe.additional=[]")
COLOURFUL = (
    "data={dataset: {name: synthetic}, image_size: 16, max_images: 160, validation_fraction: 0.25}",
    "encoder.patch_size=4",
)
NEEDED = {
    "timm": ("timm",),
    "transformers": ("transformers",),
    "safetensors": (),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}
WITHOUT_US = """\
import sys
sys.modules["jepa_lab"] = None  # importing it fails
"""
WITHOUT_TORCH = WITHOUT_US + 'sys.modules["torch"] = None\n'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Short runs of encoders that differ in what a format can hold."""
    root = tmp_path_factory.mktemp("export")
    file = write_tiny(root, TINY)

    def train(*overrides: str) -> RunFolder:
        return start_run(load_pipeline(file, (*SHORT, *overrides)), root / "runs", []).folder

    return {
        "grey": train("encoder.position=sincos"),
        "colour": train(*COLOURFUL, "encoder.position=learned"),
        "scaled": train("encoder.position=learned", "encoder.layer_scale=0.1"),
        "rotary": train("encoder.position=rope", "hierarchy.num_levels=2", "probe.levels=[1, 2]"),
    }


def needs(form: str) -> None:
    missing = [name for name in NEEDED[form] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed; install the extra `interop`")


def our_features(run: RunFolder, pixels: torch.Tensor, encoder: str = "target") -> torch.Tensor:
    """[n, D] of images [n, C, H, W] uint8."""
    pipeline = load_pipeline(run.config).pipeline
    checkpoint = CheckpointStore(run.checkpoints).load()
    mean, std = (torch.tensor(json.loads(checkpoint.model_metadata[f"channel_{key}"])) for key in ("mean", "std"))
    model = build_model(pipeline, len(mean))
    model.load_state_dict(checkpoint.model)
    with torch.no_grad():
        network = getattr(model, f"{encoder}_encoder")
        features: torch.Tensor = network(normalize(to_float(pixels), mean, std)).mean(dim=1)
    return features


def card_code(folder: Path) -> str:
    """The Python of a model card, for this folder."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1].replace("FOLDER", str(folder))


@pytest.mark.parametrize(
    ("form", "run"),
    [
        ("timm", "scaled"),
        ("transformers", "colour"),
        ("safetensors", "rotary"),
        ("onnx", "rotary"),
        *(
            pytest.param(form, run, marks=pytest.mark.slow)
            for form, run in [
                ("timm", "grey"),
                ("timm", "colour"),
                ("transformers", "grey"),
                ("safetensors", "colour"),
                ("safetensors", "scaled"),
                ("onnx", "colour"),
            ]
        ),
    ],
)
def test_the_code_of_the_model_card_computes_our_features_where_jepa_lab_cannot_be_imported(
    runs: dict[str, RunFolder], tmp_path: Path, form: str, run: str
) -> None:
    needs(form)
    out = tmp_path / "exported"
    result = invoke("export", runs[run].path, "--to", form, "--out", out)
    assert result.exit_code == 0, result.output
    assert "differ by at most" in result.output
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3) if run == "colour" else (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=100)
    with Image.open(tmp_path / "photo.jpg") as image:
        seen = np.asarray(image)
    before = WITHOUT_TORCH if form == "onnx" else WITHOUT_US
    code = f"{before}{card_code(out)}\nimport numpy\nnumpy.save('features.npy', numpy.asarray(features))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    channels_first = torch.from_numpy(seen.copy()).reshape(*seen.shape[:2], -1).permute(2, 0, 1)[None]
    expected = our_features(runs[run], channels_first)
    assert np.allclose(np.load(tmp_path / "features.npy"), expected.numpy(), atol=1e-4)
    assert expected.abs().max() > 1e-3


def test_the_context_encoder_is_exported_on_request(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    folder = runs["rotary"]
    for encoder in ("target", "context"):
        arguments = ("export", folder.path, "--to", "safetensors", "--out", tmp_path / encoder, "--encoder", encoder)
        assert invoke(*arguments).exit_code == 0
        assert f"The {encoder} encoder" in (tmp_path / encoder / "README.md").read_text()
    pixels = torch.randint(0, 256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    entry = EXPORT_FORMATS.get("safetensors")
    writer = entry.component(entry.params_type())
    found = writer.features(tmp_path / "context", pixels).mean(dim=1)
    assert torch.allclose(found, our_features(folder, pixels, "context"), atol=1e-5)
    assert not torch.allclose(found, our_features(folder, pixels, "target"), atol=1e-5)


def test_the_card_names_data_recipe_measured_accuracies_and_controls(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    assert invoke("export", runs["grey"].path, "--to", "safetensors", "--out", tmp_path / "out").exit_code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    result = runs["grey"].read_result()
    assert result is not None
    assert f"| this encoder | {100 * result['metrics']['probe/validation_accuracy']:.2f} |" in card
    assert "control: raw pixels" in card
    assert "control: the same encoder, not trained" in card
    assert "`digits`" in card
    assert "embed_dim: 16" in card
    assert "Apache License 2.0" in card


def test_the_card_of_an_encoder_that_was_probed_under_a_pyramid_says_so(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    for name in ("rotary", "grey"):
        assert invoke("export", runs[name].path, "--to", "safetensors", "--out", tmp_path / name).exit_code == 0
        card = (tmp_path / name / "README.md").read_text()
        assert ("levels 1, 2 of the run's feature pyramid, which is not part of this export" in card) == (
            name == "rotary"
        )


@pytest.mark.parametrize(
    ("form", "run", "words"),
    [
        ("timm", "rotary", "rotary positions"),
        ("transformers", "rotary", "rotary positions"),
        ("transformers", "scaled", "layer scale"),
    ],
)
def test_what_a_format_cannot_hold_is_said_and_nothing_is_written(
    runs: dict[str, RunFolder], tmp_path: Path, form: str, run: str, words: str
) -> None:
    needs(form)
    assert words in refused("export", runs[run].path, "--to", form, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_computes_something_else_fails_and_leaves_nothing(
    runs: dict[str, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("timm")
    right = TimmFormat.features
    monkeypatch.setattr(TimmFormat, "features", lambda *arguments: right(*arguments) + 1e-3)
    result = invoke("export", runs["grey"].path, "--to", "timm", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "differ by 0.001" in result.output
    assert list(tmp_path.iterdir()) == []


def test_bad_requests_are_refused(runs: dict[str, RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs["grey"].path
    assert "did you mean 'timm'" in refused("export", run, "--to", "tim", "--out", tmp_path / "out")
    (tmp_path / "there").mkdir()
    assert "exists; name a new folder" in refused("export", run, "--to", "safetensors", "--out", tmp_path / "there")
    assert "holds no checkpoint of step 99" in refused(
        "export", run, "--to", "safetensors", "--out", tmp_path / "out", "--step", "99"
    )
    monkeypatch.setattr(TimmFormat, "packages", ("timm", "not_there_at_all"))
    assert "jepa-lab[interop]" in refused("export", run, "--to", "timm", "--out", tmp_path / "out")
