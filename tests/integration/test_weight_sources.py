"""Encoders come in from runs, exports, released checkpoints, timm and transformers, and compute what they computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_lab.build import build_model
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.interop.export import ExportRequest, export_run
from jepa_lab.models.sizes import ModelSize
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.weights.plain import plain_encoder_of
from jepa_lab.weights.sources import WEIGHT_SOURCES
from jepa_lab.weights.sources.base import SourceContext, load_source
from tests.integration.pipelines import TINY, write_tiny
from tests.integration.test_export import needs

SHORT = ("encoder.size.depth=2", "training.epochs=1", "probe.method.c_grid=[0.1]", "probe.additional=[]")
CONTEXT = SourceContext()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("sources")
    loaded = load_pipeline(write_tiny(root, TINY), (*SHORT, "encoder.position=learned", "encoder.layer_scale=0.5"))
    return start_run(loaded, root / "runs", []).folder


def images(channels: int = 1, side: int = 8) -> Tensor:
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(0))


def computed(text: str, normalised: Tensor, context: SourceContext = CONTEXT) -> Tensor:
    """[n, N, D] of the encoder of a source."""
    with torch.no_grad():
        return plain_encoder_of(load_source(text, context).parts).last_layers(normalised, 1)


def of_run(run: RunFolder, normalised: Tensor) -> Tensor:
    model = build_model(load_pipeline(run.config).pipeline, 1)
    model.load_state_dict(CheckpointStore(run.checkpoints).load().model)
    with torch.no_grad():
        return model.target_encoder(normalised)


def test_a_run_is_given_by_its_folder_or_its_name(run: RunFolder) -> None:
    expected = of_run(run, images())
    assert torch.allclose(computed(str(run.path), images()), expected, atol=1e-5)
    named = SourceContext(roots=[run.path.parent])
    assert torch.allclose(computed(run.path.name, images(), named), expected, atol=1e-5)


@pytest.mark.parametrize("form", ["safetensors", "timm"])
def test_exports_come_back(run: RunFolder, tmp_path: Path, form: str) -> None:
    needs(form)
    export_run(run, ExportRequest(form), tmp_path / "out")
    assert torch.allclose(computed(str(tmp_path / "out"), images()), of_run(run, images()), atol=1e-5)
    found = load_source(str(tmp_path / "out"), CONTEXT)
    assert found.knows_normalization
    assert found.parts.has_layer_scale
    assert found.left_out == ()


def released(tmp_path: Path, run: RunFolder, **more: Any) -> Path:
    """A file in the layout of the released checkpoints, with other weights for the context encoder."""
    own = CheckpointStore(run.checkpoints).load().model
    target = {name.removeprefix("target_encoder."): each for name, each in own.items() if name.startswith("target_enc")}
    target = {name.replace("scale", "ls"): each for name, each in target.items()}
    target["pos_embed"] = target.pop("position.position_embedding")[None]
    content = {
        "encoder": {f"module.{name}": each + 1 for name, each in target.items()},
        "predictor": {"module.mask_token": torch.zeros(1, 1, 8)},
        "target_encoder": {f"module.{name}": each for name, each in target.items()},
        "opt": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "scaler": None,
        "epoch": 300,
        "loss": 0.1,
        "batch_size": 2048,
        "world_size": 16,
        "lr": 1e-3,
        **more,
    }
    torch.save(content, tmp_path / "jepa-latest.pth.tar")
    return tmp_path / "jepa-latest.pth.tar"


def test_the_target_encoder_of_a_released_checkpoint_is_read(run: RunFolder, tmp_path: Path) -> None:
    context = SourceContext(size=ModelSize(16, 2, 2))
    file = released(tmp_path, run)
    with pytest.raises(ConfigError, match="takes 1 channels and says the mean of 3"):
        load_source(str(file), context)
    content = torch.load(file, weights_only=True)
    for name in ("encoder", "target_encoder"):
        grey = content[name]["module.patch_embed.proj.weight"]
        content[name]["module.patch_embed.proj.weight"] = grey.repeat(1, 3, 1, 1) / 3
    torch.save(content, file)
    colourful = images().repeat(1, 3, 1, 1)
    assert torch.allclose(computed(str(file), colourful, context), of_run(run, images()), atol=1e-5)
    with pytest.raises(ConfigError, match="how many attention heads"):
        load_source(str(file), CONTEXT)


def test_a_file_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (print, ("executed",))

    torch.save({"model": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match="could execute code"):
        load_source(str(tmp_path / "bad.pth"), CONTEXT)


@pytest.mark.parametrize("arguments", [{}, {"reg_tokens": 2, "no_embed_class": True}, {"init_values": 0.5}])
def test_timm_models_with_a_class_token_compute_the_same_patches(tmp_path: Path, arguments: dict[str, Any]) -> None:
    needs("timm")
    import timm
    from safetensors.torch import save_file

    size = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", **size, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        expected = model.forward_features(images(3, 16))[:, model.num_prefix_tokens :]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    heads = SourceContext(size=ModelSize(24, 2, 3))
    file = str(tmp_path / "model.safetensors")
    assert torch.allclose(computed(file, images(3, 16), heads), expected, atol=1e-5)
    found = load_source(file, heads)
    assert set(found.left_out) == {"head.weight", "head.bias"}
    assert not found.knows_normalization
    config = {"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 3, "img_size": 16}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.allclose(computed(str(tmp_path), images(3, 16)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["IJepa", "ViT"])
def test_folders_of_transformers_compute_the_same_patches(tmp_path: Path, kind: str) -> None:
    needs("transformers")
    import transformers

    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    config = getattr(transformers, f"{kind}Config")(image_size=16, patch_size=4, **size)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
        expected = model(images(3, 16)).last_hidden_state[:, -16:]
    model.save_pretrained(tmp_path)
    assert torch.allclose(computed(str(tmp_path), images(3, 16)), expected, atol=1e-5)
    hub = tmp_path / "hub" / "models--someone--model"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    shutil.copytree(tmp_path, hub / "snapshots" / "abc", ignore=lambda *_: ["hub"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        assert torch.allclose(computed("someone/model", images(3, 16)), expected, atol=1e-5)


def test_missing_unknown_and_misshapen_weights_are_listed(run: RunFolder, tmp_path: Path) -> None:
    context = SourceContext(size=ModelSize(16, 2, 2))
    file = released(tmp_path, run)
    state = torch.load(file, weights_only=True)["target_encoder"]
    del state["module.blocks.1.norm2.bias"]
    state["module.blocks.0.gate.weight"] = torch.zeros(3)
    state["module.blocks.0.mlp.fc2.weight"] = torch.zeros(16, 5)
    torch.save({"target_encoder": state}, file)
    with pytest.raises(ConfigError) as error:
        load_source(str(file), context)
    text = str(error.value)
    assert "1 missing (blocks.1.norm2.bias)" in text
    assert "1 unknown (blocks.0.gate.weight)" in text
    assert "blocks.0.mlp.fc2.weight [16, 5] instead of [16, 64]" in text


def test_what_is_no_source_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="to use a model of a hub fetch its"):
        load_source("facebook/ijepa_vith14_1k", CONTEXT)
    with pytest.raises(ConfigError, match="no such file"):
        load_source("missing.pth", CONTEXT)
    assert len(WEIGHT_SOURCES.names()) == 7
