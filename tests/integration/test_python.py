"""What `import jepa_lab` gives: the same runs, probes, encoders and errors as the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import jepa_lab
from jepa_lab.build import prepare_data
from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import ConfigError, DataError, RunFolderError
from jepa_lab.evaluation import probed_encoder
from jepa_lab.interop.export import ExportRequest, export_run
from jepa_lab.probes.features import extract_features
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.weights.sources.run import encoder_of_files
from tests.integration.pipelines import TINY, write_tiny
from tests.integration.test_cli import invoke

SHORT = {"training.epochs": 1, "encoder.size.depth": 4, "probe.additional": []}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("python"), TINY)


@pytest.fixture(scope="module")
def result(file: Path) -> jepa_lab.RunResult:
    return jepa_lab.run(file, SHORT, runs=file.parent / "runs")


def in_fresh_process(code: str, cwd: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Importing


def test_importing_jepa_lab_imports_no_heavy_package(tmp_path: Path) -> None:
    heavy = "('torch', 'mlflow', 'optuna', 'pandas', 'pydantic', 'numpy', 'matplotlib', 'click')"
    code = f"import sys, jepa_lab; print([each for each in {heavy} if each in sys.modules]); print(dir(jepa_lab))"
    loaded, names = in_fresh_process(code, tmp_path).splitlines()
    assert loaded == "[]"
    assert {"run", "load_encoder", "probe", "JepaLabError"} <= set(json.loads(names.replace("'", '"')))


def test_every_submodule_leaves_the_functions_what_they_are(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    code = (
        "import importlib, pkgutil, jepa_lab\n"
        "for module in pkgutil.walk_packages(jepa_lab.__path__, 'jepa_lab.'):\n"
        "    if module.name != 'jepa_lab.__main__':\n"
        "        importlib.import_module(module.name)\n"
        "result = jepa_lab.run('tiny.yaml', {'training.epochs': 1, 'probe.additional': []})\n"
        "assert all(callable(getattr(jepa_lab, name)) for name in jepa_lab.__all__ if name != '__version__')\n"
        "print(result.content['status'])"
    )
    assert in_fresh_process(code, tmp_path).splitlines()[-1] == "FINISHED"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        jepa_lab.train  # noqa: B018


# Running


def test_a_result_has_folder_metrics_pipeline_and_encoder(result: jepa_lab.RunResult) -> None:
    assert result.metrics == RunFolder.open(result.folder).read_result()["metrics"]  # type: ignore[index]
    assert result.metrics["probe/validation_accuracy"] is not None
    assert result.pipeline.training.epochs == 1
    assert result.encoder.encode(np.zeros((5, 8, 8, 1), np.uint8)).shape == (5, 16)
    assert set(result.curves.columns) == {"step", "epoch", "time", "name", "value"}
    assert result.curves.query("name == 'train/loss'").step.tolist() == [2, 4, 5]
    assert str(result.folder) in repr(result)


def test_the_command_line_and_python_make_the_same_run(result: jepa_lab.RunResult, file: Path, tmp_path: Path) -> None:
    overrides = [f"{key}={json.dumps(value)}" for key, value in SHORT.items()]
    assert invoke("run", file, *overrides, "--runs", tmp_path / "runs").exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == result.folder.name
    timeless = ("seconds", "per_second")
    own = json.loads((folder / "result.json").read_text())["metrics"]
    assert {name: own[name] for name in own if not name.endswith(timeless)} == {
        name: value for name, value in result.metrics.items() if not name.endswith(timeless)
    }


def test_a_pipeline_may_be_a_dictionary_or_another_runs_pipeline(result: jepa_lab.RunResult) -> None:
    from jepa_lab.api.inputs import load_given_pipeline, override_texts

    data = {"dataset": "digits", "image_size": 8, "root": Path("here")}
    content = {"name": "mine", "data": data, "encoder": {"patch_size": 2}}
    loaded = load_given_pipeline(content, override_texts({"masker": "random"}))
    assert loaded.pipeline.name == "mine"
    assert str(loaded.pipeline.data.root) == "here"
    again = load_given_pipeline(result.pipeline, override_texts({"seed": 3, "training.num_threads": None}))
    assert again.pipeline.seed == 3
    assert again.pipeline.training.num_threads is None
    assert again.pipeline.encoder == result.pipeline.encoder


@pytest.mark.parametrize(
    ("pipeline", "overrides", "words"),
    [
        (
            "digitz",
            {},
            "digitz: no such file, and no pipeline of this name comes with jepa-lab; did you mean 'digits'?",
        ),
        ({"name": "mine", "data": {"image_size": 8, "datset": "digits"}}, {}, "data.datset"),
        ("digits", {"training.epochs": "ten"}, "override 'training.epochs=\"ten\"': training.epochs must be"),
        ("digits", {"masker": "multi_blck"}, "did you mean 'multi_block'?"),
        ("digits", {"training.epochs=3": 10}, "keys of overrides are dotted keys"),
        ("digits", {"training.epochs": {1, 2}}, "the override of training.epochs holds set"),
        ("digits", {"data.image_size": 7}, "data.image_size"),
        ("digits", ["training.epochs=3"], "overrides are a dictionary such as {'training.epochs': 10}, got a list"),
        (None, {}, "name a pipeline"),
    ],
)
def test_what_is_wrong_is_told_as_on_the_command_line(
    pipeline: Any, overrides: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(jepa_lab.JepaLabError) as told:
        jepa_lab.run(pipeline, overrides, runs=tmp_path / "runs")
    assert words in str(told.value)
    assert not (tmp_path / "runs").exists()


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="continue_from starts a new run"):
        jepa_lab.run("digits", resume="a", continue_from="b")
    with pytest.raises(ConfigError, match="goes with continue_from"):
        jepa_lab.run("digits", restart_schedules=True)


def test_a_run_that_was_interrupted_is_resumed(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jepa_lab.training.pretrain import Pretraining

    after_step = Pretraining.after_step

    def interrupt(self: Pretraining, step: int, *arguments: Any) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        after_step(self, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "after_step", interrupt)
        with pytest.raises(jepa_lab.JepaLabError, match="jepa-lab run --resume"):
            jepa_lab.run(file, SHORT, runs=tmp_path / "runs")
    assert jepa_lab.run(file, SHORT, runs=tmp_path / "runs", resume="auto").content["status"] == "FINISHED"
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_run_is_continued_for_more_epochs(result: jepa_lab.RunResult, tmp_path: Path) -> None:
    more = jepa_lab.run(None, {"training.epochs": 2}, continue_from=result.folder, runs=tmp_path / "runs")
    assert (result.content["last_step"], more.content["last_step"]) == (5, 10)


# Encoders


def pixels_of(result: jepa_lab.RunResult) -> tuple[Tensor, Tensor]:
    """Images of the run, and the features that its probe measures."""
    pipeline = load_pipeline(RunFolder(result.folder).config).pipeline
    data = prepare_data(pipeline, torch.device("cpu"))
    from jepa_lab.build import build_model
    from jepa_lab.training.checkpoint import CheckpointStore

    model = build_model(pipeline, 1)
    model.load_state_dict(CheckpointStore(result.folder / "checkpoints").load().model)
    images = data.validation.images[torch.arange(6)]
    arguments = (data.mean, data.std, 1, 6, torch.device("cpu"))
    return images, extract_features(probed_encoder(model, pipeline), images, *arguments)


def test_an_encoder_gives_the_features_that_were_probed(result: jepa_lab.RunResult) -> None:
    images, expected = pixels_of(result)
    encoder = jepa_lab.load_encoder(result.folder)
    assert torch.allclose(encoder.encode(images), expected, atol=1e-5)
    assert torch.allclose(encoder.encode(encoder.preprocess(images)), expected, atol=1e-5)
    patches = encoder.encode_patches(images)
    assert patches.shape == (6, encoder.num_patches, encoder.num_features)
    assert torch.allclose(patches.mean(dim=1), expected, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.training


def test_files_pictures_arrays_and_tensors_are_the_same_images(result: jepa_lab.RunResult, tmp_path: Path) -> None:
    encoder, size = result.encoder, (8, 8)
    grey = np.arange(64, dtype=np.uint8).reshape(size) * 3
    Image.fromarray(grey).save(tmp_path / "image.png")
    given = [
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGB"),
        grey,
        np.stack([grey] * 3, axis=-1),
        torch.from_numpy(grey)[None],
    ]
    ready = encoder.preprocess(given)
    assert ready.shape == (7, 1, 8, 8)
    assert all(torch.equal(each, ready[0]) for each in ready)
    assert torch.equal(encoder.preprocess(np.stack([grey, grey])[..., None]), ready[:2])
    assert encoder.encode([]).shape == (0, 16)


def test_pictures_of_any_shape_are_resized_and_cut_to_the_middle(result: jepa_lab.RunResult) -> None:
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:32] = 200  # the middle
    seen = result.encoder.preprocess(Image.fromarray(wide))
    inner = seen[0, 0, :, 1:-1]
    assert torch.allclose(inner, inner[0, 0].expand_as(inner))
    assert torch.allclose(result.encoder.preprocess(wide)[0, 0, :, 1:-1], inner)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((8, 8), np.float32), "give uint8 pixels"),
        (torch.zeros(2, 1, 9, 9), "images must be [B, 1, 8, 8], as preprocess gives them, got [2, 1, 9, 9]"),
        (torch.zeros(1, 5, 8, 8, dtype=torch.uint8), "with 1 or 3 channels"),
        (["no.png"], "no.png"),
        ([None], "image 0 is a NoneType"),
        ([np.array(["a"])], "image 0 is an array"),
    ],
)
def test_what_is_no_image_is_refused(result: jepa_lab.RunResult, images: Any, words: str) -> None:
    with pytest.raises(DataError) as told:
        result.encoder.encode(images)
    assert words in str(told.value)


def test_a_run_has_encoders_of_several_kinds_layers_sizes_and_steps(result: jepa_lab.RunResult) -> None:
    images, _ = pixels_of(result)
    target, context = (jepa_lab.load_encoder(result.folder, encoder=each) for each in ("target", "context"))
    assert not torch.equal(target.encode(images), context.encode(images))
    file = result.folder / "config.yaml"
    last = max((result.folder / "checkpoints").glob("*/model.safetensors"))
    parts = encoder_of_files(file, last, "x", "context").parts
    assert torch.equal(parts.weights["norm.weight"], context.parts().weights["norm.weight"])
    four = jepa_lab.load_encoder(result.folder.name, layers="last_four", runs=result.folder.parent)
    assert torch.allclose(four.encode(images)[:, -16:], target.encode(images), atol=1e-5)
    assert jepa_lab.load_encoder(result.folder, image_size=12).encode_patches(images).shape == (6, 36, 16)
    with pytest.raises(RunFolderError, match="no checkpoint of step 7"):
        jepa_lab.load_encoder(result.folder, step=7)
    with pytest.raises(ConfigError, match="image_size must be a multiple of 2 px"):
        jepa_lab.load_encoder(result.folder, image_size=9)


@pytest.mark.parametrize("option", [{"encoder": "traget"}, {"layers": "first"}])
def test_a_misspelt_choice_of_an_encoder_is_refused(result: jepa_lab.RunResult, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        jepa_lab.load_encoder(result.folder, **option)


def test_a_path_that_is_no_image_is_told_without_settings_of_data(result: jepa_lab.RunResult, tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        result.encoder.encode(tmp_path / "nowhere.png")
    assert "nowhere.png cannot be decoded" in str(told.value)
    assert "on_bad_image" not in str(told.value)


def test_an_export_has_one_encoder_and_the_same_features(result: jepa_lab.RunResult, tmp_path: Path) -> None:
    export_run(RunFolder.open(result.folder), ExportRequest("safetensors"), tmp_path / "export")
    images, expected = pixels_of(result)
    assert torch.allclose(jepa_lab.load_encoder(tmp_path / "export").encode(images), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="no context encoder beside it"):
        jepa_lab.load_encoder(tmp_path / "export", encoder="context")
    with pytest.raises(ConfigError, match="of one step alone"):
        jepa_lab.load_encoder(tmp_path / "export", step=3)


def test_a_source_that_does_not_say_how_images_were_normalised_has_to_be_told(
    result: jepa_lab.RunResult, tmp_path: Path
) -> None:
    parts = result.encoder.parts()
    state = {name: tensor.contiguous() for name, tensor in parts.weights.items()}
    positions = torch.zeros(1, 16, 192) if parts.positions is None else parts.positions[None]
    save_file({**state, "pos_embed": positions.contiguous()}, tmp_path / "plain.safetensors")
    statistics: dict[str, Any] = {"channel_mean": [0.5], "channel_std": [0.25]}
    with pytest.raises(ConfigError, match="does not say"):
        jepa_lab.load_encoder(tmp_path / "plain.safetensors", **statistics)  # the heads of so narrow an encoder
    with pytest.raises(ConfigError, match="channel_std must be 1 number"):
        jepa_lab.load_encoder(result.folder, channel_mean=[0.5], channel_std=[0.0])
    with pytest.raises(ConfigError, match="channel_std must be 1 number"):
        jepa_lab.load_encoder(result.folder, channel_mean=[0.5])
    seen = jepa_lab.load_encoder(result.folder, **statistics).preprocess(np.zeros((8, 8), np.uint8))
    assert torch.allclose(seen, torch.full_like(seen, -2.0))


# Probes


def test_a_run_is_probed_again_in_its_folder(result: jepa_lab.RunResult) -> None:
    again = jepa_lab.probe(result, overrides={"probe.additional": []})
    name = "probe/validation_accuracy"
    assert again.metrics[name] == pytest.approx(result.metrics[name])
    assert again.file is not None
    assert again.file.parent == result.folder / "probes"


def test_any_encoder_is_probed_with_the_weights_that_it_has_now(result: jepa_lab.RunResult, file: Path) -> None:
    encoder, overrides = jepa_lab.load_encoder(result.folder), {"probe.additional": []}
    name = "probe/validation_accuracy"
    assert jepa_lab.probe(encoder, file, overrides).metrics[name] == pytest.approx(result.metrics[name])
    with torch.no_grad():
        encoder.vit.norm.weight.zero_()
    spoilt = jepa_lab.probe(encoder, file, overrides).metrics[name]
    assert spoilt is not None
    assert spoilt < 0.5
    with pytest.raises(ConfigError, match="go with a pipeline"):
        jepa_lab.probe(encoder)
    with pytest.raises(ConfigError, match="step chooses a checkpoint"):
        jepa_lab.probe(encoder, file, step=3)


# Sweeps


def test_a_sweep_gives_a_table_of_arms_and_a_report(file: Path, tmp_path: Path) -> None:
    text = f"name: two\nbase: {file}\nbaseline: smooth\narms: {{smooth: {{}}, l2: {{loss: l2}}}}\nseeds: [0, 1]\n"
    (tmp_path / "two.yaml").write_text(text)
    short = {"training.epochs": 1, "probe.additional": [], "probe.method.c_grid": [0.1]}
    found = jepa_lab.sweep(tmp_path / "two.yaml", short, sweeps=tmp_path / "sweeps", slots=1)
    table = found.table.set_index("arm")
    assert list(table.index[table["role"] != "control"]) == ["smooth", "l2"]
    assert table.loc["l2", "n"] == 2
    assert table.loc["l2", "difference"] == pytest.approx(table.loc["l2", "mean"] - table.loc["smooth", "mean"])
    assert list(found.trials["status"]) == ["FINISHED"] * 4
    assert "<html" in found.report.read_text()
    assert found.folder.parent == tmp_path / "sweeps"


def test_a_grid_of_a_pipeline_is_what_the_command_line_makes_of_commas(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jepa_lab.api import sweeping
    from jepa_lab.sweeps.plan import Plan

    def stop(plan: Plan, text: str, settings: object) -> None:
        raise KeyError(plan, text)

    monkeypatch.setattr(sweeping, "run_sweep", stop)
    with pytest.raises(KeyError) as stopped:
        jepa_lab.sweep(file, {"training.epochs": 1}, grid={"loss": ["smooth_l1", "l2"]}, seeds=range(2))
    plan, text = stopped.value.args
    assert plan.seeds == (0, 1)
    assert len(plan.arms) == 2
    assert plan.pipelines[plan.arms[1].name].pipeline.loss.name == "l2"  # type: ignore[attr-defined]
    assert "smooth_l1" in text


@pytest.mark.parametrize(
    ("ablation", "options", "words"),
    [
        ("digits", {"grid": {"loss": "l2"}}, "grid has a list of values for each key"),
        ("masker", {"metric": "no_such_metric"}, "no_such_metric"),
        ("masker_", {}, "no ablation of this name"),
        ("masker", {"slots": 0}, "slots must be at least 1, got 0"),
        ("masker", {"slots": 1, "slots_per_gpu": 1}, "slots"),
        ("masker", {"overrides": {"training.epochs": "ten"}}, "training.epochs"),
        ("masker", {"arms": "one blck"}, "there is no arm 'one blck'"),
        *(("masker", {"seeds": seeds}, "seeds are whole numbers") for seeds in ("0-2", 3, [1.5], [-1], [2**63])),
    ],
)
def test_what_is_wrong_with_a_sweep_is_told_before_anything_is_written(
    ablation: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(jepa_lab.JepaLabError) as told:
        jepa_lab.sweep(ablation, sweeps=tmp_path / "sweeps", preset="smoke", **options)
    assert words in str(told.value)
    assert not (tmp_path / "sweeps").exists()
