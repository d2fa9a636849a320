"""`jepa-lab register`, and what is registered: features from Python, from a server, and for `jepa-lab probe`."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

from jepa_lab.cli import main
from jepa_lab.composition.start import start_run
from jepa_lab.tracking.description import TrackerSettings
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.fault_proxy import wait_until
from tests.integration.mlflow_server import MlflowServer
from tests.integration.pipelines import load_tiny, write_tiny
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

pytestmark = MLFLOW_WARNINGS


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment(NO_PROXY="127.0.0.1", OMP_NUM_THREADS="1"):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run that is to be recorded in a store which is not there yet."""
    root = tmp_path_factory.mktemp("registered")
    folder = start_run(load_tiny(root, "training.epochs=1"), root / "runs", ["test"]).folder
    _follow(folder, MlflowTracker(MlflowParams(uri=f"sqlite:///{root / 'mlflow.db'}")).settings())
    return folder


def _follow(folder: RunFolder, tracker: TrackerSettings | None) -> None:
    folder.write_description(replace(folder.read_description(), tracker=tracker))


def _copy(run: RunFolder, target: Path) -> RunFolder:
    shutil.copytree(run.path, target, ignore=shutil.ignore_patterns("mirror*"))
    return RunFolder(target)


def _register(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["register", *map(str, arguments)])


def _uri(run: RunFolder) -> str:
    tracker = run.read_description().tracker
    assert tracker is not None
    return tracker.uri


@pytest.fixture(scope="module")
def registered(run: RunFolder) -> str:
    """Registers the run; what the command said."""
    done = _register(run.path.name, "--runs", run.path.parent, "--name", "digits encoder")
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_is_registered_once_and_the_command_says_how_to_load_it(run: RunFolder, registered: str) -> None:
    from mlflow import MlflowClient

    uri = _uri(run)
    first, *rest = registered.splitlines()
    assert first == f"registered the encoder of {run.path} as models:/digits encoder/1 in {uri}"
    assert (
        f"mlflow.pyfunc.load_model('models:/digits encoder/1').predict(images) (after mlflow.set_tracking_uri({uri!r}))"
        in rest[0]
    )
    assert rest[1].endswith("mlflow models serve --model-uri 'models:/digits encoder/1' --env-manager local")
    assert f"jepa-lab probe --encoder 'models:/digits encoder/1' --uri {uri} PIPELINE" in rest[2]
    again = _register(run.path, "--name", "digits encoder")
    quiet = _register(run.path, "--name", "digits encoder", "--quiet")
    assert quiet.output == "models:/digits encoder/1\n"
    assert again.exit_code == 0, again.output
    assert again.output.startswith(f"already registered: the encoder of {run.path} as models:/digits encoder/1")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (version,) = client.search_model_versions("name = 'digits encoder'")
    assert version.tags == {"run": run.name}
    assert client.get_run(version.run_id).info.run_name == run.name


def test_a_registered_encoder_is_a_source_of_jepa_lab_probe(run: RunFolder, registered: str, tmp_path: Path) -> None:
    out = tmp_path / "probe.json"
    arguments = ["--encoder", "models:/digits encoder/1", "--uri", _uri(run), str(write_tiny(tmp_path))]
    done = click.testing.CliRunner().invoke(main, ["probe", *arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    result = run.read_result()
    assert result is not None
    found = json.loads(out.read_text())["metrics"]["probe/validation_accuracy"]
    assert found == pytest.approx(result["metrics"]["probe/validation_accuracy"])


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "..", "x" * 257, 'it\'s "quoted"'])
def test_a_name_that_mlflow_could_not_find_again_is_refused_before_anything_is_sent(run: RunFolder, name: str) -> None:
    done = _register(run.path, "--name", name)
    assert done.exit_code == 2, done.output
    assert "name" in done.output


def test_a_run_that_is_not_there_not_finished_or_not_in_mlflow_is_refused_with_the_remedy(
    run: RunFolder, tmp_path: Path
) -> None:
    missing = _register("nothing", "--runs", tmp_path, "--name", "x")
    assert (missing.exit_code, "nothing" in missing.output) == (2, True)
    unfinished = _copy(run, tmp_path / "unfinished")
    unfinished.remove_result()
    done = _register(unfinished.path, "--name", "x")
    assert done.exit_code == 2
    assert "is not finished, and the encoder of a finished run alone is registered" in done.output
    assert f"jepa-lab run --resume {unfinished.path}" in done.output
    unfinished.write_result("FAILED", {}, 1)
    assert "ended as FAILED" in _register(unfinished.path, "--name", "x").output
    elsewhere = _copy(run, tmp_path / "elsewhere")
    _follow(elsewhere, None)
    done = _register(elsewhere.path, "--name", "x")
    assert done.exit_code == 2
    assert "`tracking: none`" in done.output
    assert "jepa-lab export" in done.output


def test_a_server_that_cannot_be_reached_is_exit_code_3_and_the_command_to_repeat(
    run: RunFolder, tmp_path: Path
) -> None:
    away = _copy(run, tmp_path / "away")
    _follow(away, TrackerSettings("http://127.0.0.1:9", None, "e", None, 1.0))  # the discard port: nobody listens
    done = _register(away.path, "--name", "x")
    assert done.exit_code == 3, done.output
    assert "could not be sent to http://127.0.0.1:9" in done.output
    assert "run the same command again when the store can be reached" in done.output


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("ENDPOINT_NOT_FOUND", 2, "has no registry of models"),
        ("FEATURE_DISABLED", 2, "has no registry of models"),
        ("PERMISSION_DENIED", 2, "refused to register 'x'"),
        ("TEMPORARILY_UNAVAILABLE", 3, "run the same command again when it answers"),
    ],
)
def test_a_store_without_a_registry_and_one_that_refuses_or_fails_are_told_apart(
    run: RunFolder, registered: str, monkeypatch: pytest.MonkeyPatch, code: str, exit_code: int, words: str
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import RestException

    def refuse(*_: object, **__: object) -> None:
        raise RestException({"error_code": code, "message": "no"})

    monkeypatch.setattr(MlflowClient, "create_registered_model", refuse)
    done = _register(run.path, "--name", "x")
    assert done.exit_code == exit_code, done.output
    assert words in done.output


_LOAD = """\
import sys
import mlflow, numpy
uri, images, features = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri)
found = model.predict(numpy.load(images))
numpy.save(features, found)
example = model.input_example
assert example.dtype == numpy.uint8 and example.shape == (1, 8, 8, 1), example.shape
assert model.predict(example).shape == (1, found.shape[1])
print(model.metadata.signature.inputs.inputs[0].shape, model.metadata.signature.outputs.inputs[0].shape)
"""


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """[n, H, W, C] uint8, larger than the encoder's images and not square."""
    return np.random.default_rng(0).integers(0, 256, (5, 20, 14, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def features(
    run: RunFolder, registered: str, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    """What `mlflow.pyfunc.load_model(...).predict` gives in a fresh process, [n, num_features]."""
    return _loaded("models:/digits encoder/1", _uri(run), images, tmp_path_factory.mktemp("loaded"))


def _loaded(model: str, uri: str, images: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, model, folder / "images.npy", folder / "features.npy"],
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(-1, -1, -1, 1) (-1, 16)"
    return np.load(folder / "features.npy")


def test_the_registered_model_computes_what_load_encoder_of_the_run_does(
    run: RunFolder, images: np.ndarray, features: np.ndarray
) -> None:
    import jepa_lab

    assert features.dtype == np.float32
    expected = jepa_lab.load_encoder(run.path).encode(images)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_run_is_registered_with_a_server_whose_clients_load_it(
    run: RunFolder, images: np.ndarray, features: np.ndarray, tmp_path: Path
) -> None:
    server = MlflowServer(tmp_path)
    try:
        uri = f"http://127.0.0.1:{server.port}"
        copy = _copy(run, tmp_path / "run")
        _follow(copy, MlflowTracker(MlflowParams(uri=uri)).settings())
        command = [sys.executable, "-m", "jepa_lab", "register", str(copy.path), "--name", "of a server"]
        for words in ("registered the encoder of", "already registered: the encoder of"):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{words} {copy.path} as models:/of a server/1")
        np.testing.assert_array_equal(_loaded("models:/of a server/1", uri, images, tmp_path), features)
    finally:
        server.kill()


@contextlib.contextmanager
def _served(run: RunFolder, folder: Path) -> Iterator[str]:
    """`mlflow models serve` on the loopback interface; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/digits encoder/1"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": _uri(run), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "serve.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        if server.poll() is not None:
            pytest.fail((folder / "serve.log").read_text())
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
            return True
        return False

    try:
        assert wait_until(answers, seconds=240), (folder / "serve.log").read_text()
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


@pytest.mark.slow
def test_mlflow_models_serve_turns_images_into_features(
    run: RunFolder, images: np.ndarray, features: np.ndarray, tmp_path: Path
) -> None:
    with _served(run, tmp_path) as url:
        answer = _post(url, {"inputs": images.tolist()})
        np.testing.assert_allclose(np.asarray(answer["predictions"], np.float32), features, atol=1e-5)
        same = _post(url, {"instances": images[:2].tolist()})
        np.testing.assert_allclose(np.asarray(same["predictions"], np.float32), features[:2], atol=1e-5)
        encoded = base64.b64encode(images.tobytes()).decode()  # which docs/mlflow.md says is not taken
        for body in (
            {"inputs": images[..., 0].tolist()},
            {"inputs": [encoded]},
            {"dataframe_records": [{"image": encoded}]},
        ):
            with pytest.raises(urllib.error.HTTPError) as caught:
                _post(url, body)
            with caught.value as answered:
                assert answered.code == 400, body
