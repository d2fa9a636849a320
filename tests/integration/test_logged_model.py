"""What is logged to MLflow as a model loads as a model: the features that the run's probe measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import jepa_lab.evaluation
import jepa_lab.weights.sources
from jepa_lab.composition.start import start_run
from jepa_lab.data.centre_squares import cut_out
from jepa_lab.data.images import Pictures
from jepa_lab.errors import ConfigError, DataError, RunFolderError
from jepa_lab.interop.mlflow_model import EncoderFeatures, _load_pyfunc
from jepa_lab.probes.subject import Subject
from jepa_lab.tracking.mirror import sync
from jepa_lab.tracking.mirror_cursor import mlflow_run_id
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.weights.plain import plain_encoder_of
from jepa_lab.weights.sources.base import SourceContext, load_source
from tests.integration.pipelines import load_tiny
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

pytestmark = MLFLOW_WARNINGS


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment():
        yield


Probed = tuple[RunFolder, np.ndarray, np.ndarray]
"""A run, its test images [n, C, H, W] uint8, and the features [n, D'] that its probe got of them."""


def _probed_run(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Probed:
    subjects: list[Subject] = []
    build = jepa_lab.evaluation.build_subject

    def remember(*arguments: object) -> Subject:
        subjects.append(build(*arguments))  # type: ignore[arg-type]
        return subjects[-1]

    with monkeypatch.context() as patch:
        patch.setattr(jepa_lab.evaluation, "build_subject", remember)
        outcome = start_run(load_tiny(folder, "training.epochs=1", *overrides), folder / "runs", ["test"])
    trained = subjects[0]
    assert trained.splits.test is not None
    assert trained.features.test is not None
    return outcome.folder, trained.splits.test.images[:].numpy(), trained.features.test[0].numpy()


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    with pytest.MonkeyPatch.context() as patch:
        return _probed_run(tmp_path_factory.mktemp("logged model"), patch)


def _model_files(run: RunFolder, target: Path) -> Path:
    """The files of a logged model, without MLflow."""
    target.mkdir()
    shutil.copy(run.config, target)
    checkpoints = CheckpointStore(run.checkpoints)
    shutil.copy(checkpoints.path(checkpoints.steps()[-1]) / "model.safetensors", target)
    return target


@pytest.fixture
def model(probed: Probed, tmp_path: Path) -> EncoderFeatures:
    return _load_pyfunc(str(_model_files(probed[0], tmp_path / "model")))


@pytest.mark.parametrize(
    "overrides",
    [
        ("probe.encoder=context", "probe.layers=last_four", "encoder.size.depth=4"),
        ("probe.image_size=12", "target=pca"),
        ("hierarchy.num_levels=2", "data.channel_mean=[0.5]", "data.channel_std=[0.25]"),
        ("hierarchy={num_levels: 2, downsampling: conv}", "probe.levels=[1, 2]", "probe.image_size=12"),
    ],
    ids=" ".join,
)
def test_the_model_gives_bitwise_the_features_of_the_runs_own_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    run, images, features = _probed_run(tmp_path, monkeypatch, *overrides)
    loaded = _load_pyfunc(str(_model_files(run, tmp_path / "model")))
    predicted = loaded.predict(images)
    assert predicted.dtype == np.float32
    assert np.array_equal(predicted, features)
    result = run.read_result()
    assert result is not None
    assert result["encoder"] == {"input_shape": list(images.shape[1:]), "num_features": features.shape[1]}


def _objects(images: Iterable[np.ndarray]) -> np.ndarray:
    """Images of any sizes in one array."""
    kept = list(images)
    held = np.empty(len(kept), dtype=object)
    held[:] = kept
    return held


def test_images_of_other_sizes_are_cut_and_resized_as_the_probes_pictures(
    probed: Probed, model: EncoderFeatures
) -> None:
    _, images, features = probed
    last = np.moveaxis(images[:3], 1, -1)
    larger = np.repeat(np.repeat(last, 2, axis=1), 2, axis=2)  # [3, 16, 16, 1]
    wide = np.pad(larger, ((0, 0), (0, 0), (6, 6), (0, 0)))  # what is cut off
    square = cut_out(Pictures(torch.from_numpy(np.moveaxis(larger, -1, 1).copy()), None), 8, 1.0)
    expected = model.predict(square.numpy())
    assert np.array_equal(model.predict(larger), expected)
    np.testing.assert_allclose(model.predict(wide), expected, atol=1e-5)
    mixed = model.predict(_objects([last[0], larger[1], wide[2]]))
    np.testing.assert_allclose(mixed, np.stack([features[0], *expected[1:]]), atol=1e-5)


def test_images_are_taken_as_an_array_or_as_a_data_frame(probed: Probed, model: EncoderFeatures) -> None:
    _, images, features = probed
    flat = images.reshape(len(images), -1)
    forms = {
        "array": images,
        "channels last": np.moveaxis(images, 1, -1),
        "an array of images": _objects(np.moveaxis(images, 1, -1)),
        "a column of images, channels last": pd.DataFrame({"image": list(np.moveaxis(images, 1, -1))}),
        "flat array": flat,
        "64-bit integers": images.astype(np.int64),
        "a column of images": pd.DataFrame({"image": list(images)}),
        "a column of lists": pd.DataFrame({"image": flat.tolist()}),
        "a column for each pixel": pd.DataFrame(flat),
    }
    for name, form in forms.items():
        assert np.array_equal(model.predict(form), features), name
    assert model.predict(images[:0]).shape == (0, features.shape[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images / 255, r"got float64; .*normalised here"),
        (lambda images: images[:, :, :7], r"\[n, 1, 8, 8\].*got the shape \(\d+, 1, 7, 8\); put the channels last"),
        (lambda images: images[:, 0], r"got the shape \(\d+, 8, 8\)"),
        (lambda images: images.astype(int) - 1, "got values from -1 to"),
        (lambda images: pd.DataFrame({"image": [[1, 2], [3]]}), r"got the shape \(1, 2\)"),
    ],
    ids=["floats", "another size", "no channels", "negative", "unequal cells"],
)
def test_what_are_no_such_images_is_refused_with_the_rule(
    probed: Probed, model: EncoderFeatures, change: object, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        model.predict(change(probed[1]))  # type: ignore[operator]


def test_weights_that_cannot_be_used_are_refused_with_a_sentence(probed: Probed, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    files = _model_files(probed[0], tmp_path / "model")
    tensors = load_file(files / "model.safetensors")
    save_file(tensors, files / "model.safetensors")
    with pytest.raises(RunFolderError, match=r"channel_mean .*older jepa-lab"):
        _load_pyfunc(str(files))
    channels = {"channel_mean": "[0]", "channel_std": "[1]"}
    save_file(dict(list(tensors.items())[1:]), files / "model.safetensors", channels)
    with pytest.raises(RunFolderError, match=r"model\.safetensors does not fit .*config\.yaml"):
        _load_pyfunc(str(files))
    (files / "model.safetensors").write_bytes(b"x")
    with pytest.raises(RunFolderError, match="damaged"):
        _load_pyfunc(str(files))


def test_the_device_is_that_of_mlflows_variable(
    probed: Probed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = str(_model_files(probed[0], tmp_path / "model"))
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", "cpu")
    assert _load_pyfunc(files).device.type == "cpu"
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", "toaster")
    with pytest.raises(ConfigError, match="MLFLOW_DEFAULT_PREDICTION_DEVICE=toaster: no such device"):
        _load_pyfunc(files)


_LOAD = """\
import sys
import mlflow, numpy
uri, images, features = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri)
numpy.save(features, model.predict(numpy.load(images)))
print(model.metadata.signature.inputs.inputs[0].shape)
try:
    mlflow.pytorch.load_model(uri)
except mlflow.MlflowException as error:
    print(error)
"""


def test_a_logged_model_loads_in_a_fresh_process_and_nothing_is_unpickled(probed: Probed, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run, images, features = probed
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    description = run.read_description()
    run.write_description(replace(description, tracker=MlflowTracker(MlflowParams(uri=uri)).settings()))
    state = sync(run.path)
    assert state.complete, state
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("jepa-lab")
    assert experiment is not None
    (logged,) = client.search_logged_models([experiment.experiment_id])
    np.save(tmp_path / "images.npy", np.moveaxis(images, 1, -1))
    files = [f"models:/{logged.model_id}", str(tmp_path / "images.npy"), str(tmp_path / "features.npy")]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, *files],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "features.npy"), features)
    shape, sentence = done.stdout.splitlines()
    assert shape == "(-1, -1, -1, 1)"
    assert f"not pickled; load them with mlflow.pyfunc.load_model('models:/{logged.model_id}')" in sentence
    assert "requirements" not in done.stderr


def test_a_logged_model_is_a_source_of_weights_by_its_id_and_by_its_run(probed: Probed, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run, images, features = probed
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("mirror*"))
    copy = RunFolder.open(tmp_path / "run")
    copy.write_description(replace(copy.read_description(), tracker=MlflowTracker(MlflowParams(uri=uri)).settings()))
    assert sync(copy.path).complete
    client = MlflowClient(tracking_uri=uri)
    run_id = mlflow_run_id(copy)
    assert run_id is not None
    (output,) = client.get_run(run_id).outputs.model_outputs
    client.create_registered_model("encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)  # where MLflow itself looks for what is registered
        client.create_model_version("encoder", f"models:/{output.model_id}", model_id=output.model_id)
    client.set_registered_model_alias("encoder", "best", 1)
    names = (f"models:/{output.model_id}", f"runs:/{run_id}", "models:/encoder/1", "models:/encoder@best")
    for text in names:
        parts = load_source(text, SourceContext(uri=uri)).parts
        with torch.no_grad():
            found, _ = plain_encoder_of(parts)(torch.from_numpy(images) / 255)
        assert np.allclose(found.numpy(), features, atol=1e-5), text
    with pytest.raises(ConfigError, match="is it the right store"):
        load_source(f"runs:/{'0' * 32}", SourceContext(uri=uri))
    with pytest.raises(ConfigError, match="must be models:/m-ID"):
        load_source("models:/encoder/Production", SourceContext(uri=uri))
    with pytest.raises(ConfigError, match="there is no tracking store"):
        load_source(f"runs:/{run_id}", SourceContext(uri=f"sqlite:///{tmp_path / 'other.db'}"))
