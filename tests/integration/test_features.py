"""`jepa-lab features`: a folder of images becomes one file of features, in any format, whenever it is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import jepa_lab
from jepa_lab.api import features as features_module
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import ConfigError, DataError, RunInterrupted
from jepa_lab.feature_files.parts import FeatureParts
from tests.integration.pipelines import TINY, write_tiny
from tests.integration.test_cli import invoke, refused

SIZES = [(9, 30), (8, 8), (40, 13), (16, 16), (64, 50), (8, 9), (21, 20)]
NAMES = ["a.png", "deep/b.jpg", "deep/er/c d.png", "deep/z.bmp", "e.png", "f.png", "ü.png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = write_tiny(tmp_path_factory.mktemp("features"), TINY)
    overrides = ["training.epochs=1", "encoder.size.depth=4", "probe.additional=[]", "probe.method.c_grid=[0.1]"]
    return start_run(load_pipeline(file, overrides), file.parent / "runs", []).folder.path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number, (name, (width, height)) in enumerate(zip(NAMES, SIZES, strict=True)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "PART_IMAGES", 2)


def read(file: Path) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """Paths, features and description of a file of any format."""
    if file.suffix == ".npz":
        content = np.load(file)
        return content["paths"].tolist(), content["features"], json.loads(str(content["description"]))
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        tensors = load_file(file)
        with safe_open(file, "numpy") as opened:
            described = json.loads(opened.metadata()["jepa_lab"])
        return json.loads(bytes(tensors["paths"])), tensors["features"], described
    import pandas as pd
    import pyarrow.parquet as pq

    frame = pd.read_parquet(file)
    features = np.stack([np.stack(list(row)) for row in frame["features"]])
    return frame["path"].tolist(), features, json.loads(pq.read_schema(file).metadata[b"jepa_lab"])


@pytest.mark.parametrize("patches", [False, True], ids=["pooled", "patches"])
@pytest.mark.usefixtures("small_parts")
def test_every_format_holds_the_features_of_the_encoder_by_relative_path(
    run: Path, photos: Path, tmp_path: Path, patches: bool
) -> None:
    more = ["--patches"] if patches else []
    for ending in ("parquet", "npz", "safetensors"):
        result = invoke("features", run, photos, "--out", tmp_path / f"out.{ending}", *more, "--batch-size", "2")
        assert result.exit_code == 0, result.output
        assert f"wrote {tmp_path / f'out.{ending}'}: 7 x {'16 x 16' if patches else '16'} features" in result.output
    encoder = jepa_lab.load_encoder(run)
    encode = encoder.encode_patches if patches else encoder.encode
    expected = encode([photos / name for name in NAMES]).numpy()
    found = [read(tmp_path / f"out.{ending}") for ending in ("parquet", "npz", "safetensors")]
    for paths, features, description in found:
        assert paths == NAMES
        assert features.dtype == np.float32
        assert np.array_equal(features, found[0][1])
        assert np.allclose(features, expected, atol=1e-5)
        assert description["source"] == str(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "out.parquet", "out.safetensors", "photos"]


def test_encoder_and_layers_are_chosen_as_elsewhere(run: Path, photos: Path, tmp_path: Path) -> None:
    options = ("--encoder", "context", "--layers", "last_four", "--image-size", "12")
    assert invoke("features", run, photos, "--out", tmp_path / "out.npz", *options).exit_code == 0
    encoder = jepa_lab.load_encoder(run, encoder="context", layers="last_four", image_size=12)
    expected = encoder.encode([photos / name for name in NAMES]).numpy()
    assert np.allclose(read(tmp_path / "out.npz")[1], expected, atol=1e-5)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("place", ["before a part", "after a part", "in the whole file"])
def test_a_kill_at_any_moment_leaves_no_half_file_and_is_resumed(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    class Killed(BaseException):
        pass

    encoder, out, encoded = jepa_lab.load_encoder(run), tmp_path / "out.safetensors", []
    jepa_lab.features(encoder, photos, tmp_path / "whole.safetensors", say=encoded.append)
    add, write = FeatureParts.add, features_module._write_whole

    def killing_add(self: FeatureParts, number: int, *arguments: Any) -> None:
        if number == 1 and place == "before a part":
            raise Killed
        add(self, number, *arguments)
        if number == 1 and place == "after a part":
            raise Killed

    def killing_write(path: Path, content: Any) -> None:
        def half(scratch: Path) -> None:
            scratch.write_bytes(b"half")
            raise Killed

        write(path, half if place == "in the whole file" else content)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureParts, "add", killing_add)
        patch.setattr(features_module, "_write_whole", killing_write)
        with pytest.raises(Killed):
            jepa_lab.features(encoder, photos, out)
    assert not out.exists()
    said: list[str] = []
    jepa_lab.features(encoder, photos, out, say=said.append)
    done = {"before a part": 2, "after a part": 4, "in the whole file": 7}[place]
    assert said[0] == f"resuming after {done} of 7 images"
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not (tmp_path / "out.safetensors.parts").exists()


@pytest.mark.usefixtures("small_parts")
def test_ctrl_c_says_how_to_resume(run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = FeatureParts.add

    def interrupting(self: FeatureParts, *arguments: Any) -> None:
        add(self, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(FeatureParts, "add", interrupting)
    with pytest.raises(RunInterrupted, match="of 7 images; run the same command again to resume"):
        jepa_lab.features(run, photos, tmp_path / "out.npz")


def all_but_the_end(run: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extraction that ends when its parts are there and before the file is."""

    def stop(path: Path, write: Any) -> None:
        raise KeyError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(features_module, "_write_whole", stop)
        with pytest.raises(KeyError):
            jepa_lab.features(run, photos, out)


@pytest.mark.usefixtures("small_parts")
def test_images_that_have_changed_are_encoded_again(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_but_the_end(run, photos, tmp_path / "out.npz", monkeypatch)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(photos / NAMES[2])
    said: list[str] = []
    jepa_lab.features(run, photos, tmp_path / "out.npz", say=said.append)
    assert said[0] == "resuming after 2 of 7 images"
    jepa_lab.features(run, photos, tmp_path / "anew.npz")
    assert np.array_equal(read(tmp_path / "out.npz")[1], read(tmp_path / "anew.npz")[1])


def test_bad_images_are_named_and_left_out_only_where_that_is_asked_for(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "deep" / "no.png").write_bytes(b"no image")
    (photos / "phone.heic").write_bytes(b"")
    out = tmp_path / "out.parquet"
    message = refused("features", run, photos, "--out", out)
    assert str(photos / "deep" / "no.png") in message
    assert not out.exists()
    result = invoke("features", run, photos, "--out", out, "--on-bad-image", "skip")
    assert result.exit_code == 0, result.output
    assert f"left out: {photos / 'deep' / 'no.png'} cannot be decoded" in result.output
    assert "note: formats that are not read are left out: 1 .heic" in result.output
    paths, features, description = read(out)
    assert paths == NAMES
    assert len(features) == 7
    assert [each["path"] for each in description["skipped"]] == ["deep/no.png"]


def test_what_cannot_be_meant_is_refused_before_anything_is_written(run: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.npz").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    assert "must end with one of .npz, .parquet, .safetensors" in refused("features", run, photos, "--out", "out.csv")
    assert "already exists" in refused("features", run, photos, "--out", tmp_path / "there.npz")
    out = ("--out", tmp_path / "out.npz")
    assert "there are no images in" in refused("features", run, tmp_path / "empty", *out)
    assert "is not a folder" in refused("features", run, tmp_path / "nowhere", *out)
    assert "no such device here" in refused("features", run, photos, *out, "--device", "abacus")
    assert "--channel-mean must be numbers" in refused("features", run, photos, *out, "--channel-mean", "grey")
    assert "is not a run, a folder of a model" in refused("features", tmp_path / "empty", photos, *out)
    assert sorted(tmp_path.iterdir()) == before


def test_a_misspelt_choice_about_bad_images_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on_bad_image must be one of error, skip, got 'skpi'"):
        jepa_lab.features(run, photos, tmp_path / "out.npz", on_bad_image="skpi")  # type: ignore[arg-type]
    assert not list(tmp_path.glob("out.npz*"))


def test_settings_may_change_as_long_as_no_part_is_done(run: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    assert "--on-bad-image=skip" in refused("features", run, photos, "--out", tmp_path / "out.npz")
    written = jepa_lab.features(run, photos, tmp_path / "out.npz", patches=True, on_bad_image="skip")
    assert len(written.shape) == 3


@pytest.mark.usefixtures("small_parts")
def test_the_beginning_of_another_extraction_is_not_taken_up(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_but_the_end(run, photos, tmp_path / "out.npz", monkeypatch)
    with pytest.raises(ConfigError, match=r"another extraction: patches \(False -> True\); delete the folder"):
        jepa_lab.features(run, photos, tmp_path / "out.npz", patches=True)
    encoder = jepa_lab.load_encoder(run)
    with torch.no_grad():
        encoder.vit.norm.bias.add_(1)
    with pytest.raises(ConfigError, match="weights_sha256"):
        jepa_lab.features(encoder, photos, tmp_path / "out.npz")


def test_a_folder_whose_images_are_all_bad_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 files"):
        jepa_lab.features(run, tmp_path / "bad", tmp_path / "out.npz", on_bad_image="skip")
