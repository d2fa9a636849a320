"""What every registered format, source of weights and tracker must keep."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import jepa_lab.tracking
import jepa_lab.weights.sources  # noqa: F401  (both register what they hold)
from jepa_lab.composition.start import start_run
from jepa_lab.feature_files.formats import FEATURE_FORMATS
from jepa_lab.interop.exports import EXPORT_FORMATS
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing import ExportFormatContract, FeatureFormatContract, TrackerContract, WeightSourceContract
from jepa_lab.testing.export_formats import encoder_parts
from jepa_lab.tracking.base import TRACKERS, Tracker
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.weights.sources import WEIGHT_SOURCES
from jepa_lab.weights.sources.base import SourceContext, WeightSource
from tests.contracts.registered import each_of
from tests.integration.pipelines import load_tiny
from tests.integration.test_export import needs
from tests.integration.with_mlflow import MLFLOW_WARNINGS


class TestExportFormats(ExportFormatContract):
    entry = each_of(EXPORT_FORMATS)


def read_npz(file: Path) -> tuple[Sequence[str], np.ndarray, str]:
    content = np.load(file)
    return content["paths"].tolist(), content["features"], str(content["description"])


def read_parquet(file: Path) -> tuple[Sequence[str], np.ndarray, str]:
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    features = np.array(table["features"].to_pylist(), np.float32)
    assert "float" in str(table.schema.field("features").type)
    return table["path"].to_pylist(), features, table.schema.metadata[b"jepa_lab"].decode()


def read_safetensors(file: Path) -> tuple[Sequence[str], np.ndarray, str]:
    with safe_open(file, "numpy") as opened:
        description = opened.metadata()["jepa_lab"]
        return json.loads(bytes(opened.get_tensor("paths"))), opened.get_tensor("features"), description


READERS = {"npz": read_npz, "parquet": read_parquet, "safetensors": read_safetensors}


class TestFeatureFormats(FeatureFormatContract):
    entry = each_of(FEATURE_FORMATS)

    def read(self, path: Path) -> tuple[Sequence[str], np.ndarray, str]:
        return READERS[path.suffix.removeprefix(".")](path)


@functools.cache
def trained_run() -> Path:
    """A run folder, whose weights no test changes."""
    overrides = ("training.epochs=1", "probe.method.c_grid=[0.1]", "probe.additional=[]", "monitors.end=[]")
    folder = Path(tempfile.mkdtemp(prefix="jepa-lab-tests-"))
    atexit.register(shutil.rmtree, folder)
    return start_run(load_tiny(folder, *overrides), folder / "runs", []).folder.path


def place_of_run(folder: Path) -> str:
    return str(shutil.copytree(trained_run(), folder / "run"))


def place_of_export(folder: Path, form: str = "safetensors") -> str:
    entry = EXPORT_FORMATS.get(form)
    (folder / "export").mkdir()
    entry.component(entry.params_type()).write(encoder_parts("fixed positions"), folder / "export")
    return str(folder / "export")


def place_of_transformers(folder: Path) -> str:
    needs("transformers")
    return place_of_export(folder, "transformers")


def place_of_timm(folder: Path) -> str:
    parts = encoder_parts("fixed positions")
    config = {"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 2, "img_size": 12}}
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config))
    state = {**parts.weights, "pos_embed": parts.position_table[None]}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model" / "model.safetensors")
    return str(folder / "model")


def place_of_checkpoint(folder: Path) -> str:
    return f"{place_of_timm(folder)}/model.safetensors"


def place_in_cache(folder: Path) -> str:
    snapshot = folder / "hub" / "models--someone--model" / "snapshots" / "abc"
    shutil.copytree(place_of_timm(folder), snapshot)
    return "someone/model"


def place_in_mlflow(folder: Path) -> str:
    """Its files are where a download puts them (see the fixture `text`); tests of MLflow itself are elsewhere."""
    run = Path(place_of_run(folder))
    (folder / "downloaded").mkdir()
    shutil.copy(run / "config.yaml", folder / "downloaded")
    last = CheckpointStore(run / "checkpoints").load().run.step
    shutil.copy(CheckpointStore(run / "checkpoints").path(last) / "model.safetensors", folder / "downloaded")
    return "models:/encoder/1"


PLACES = {
    "cached": place_in_cache,
    "checkpoint": place_of_checkpoint,
    "export": place_of_export,
    "mlflow": place_in_mlflow,
    "run": place_of_run,
    "timm": place_of_timm,
    "transformers": place_of_transformers,
}


class TestWeightSources(WeightSourceContract):
    entry = each_of(WEIGHT_SOURCES)

    @pytest.fixture
    def text(self, entry: Entry[WeightSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("jepa_lab.weights.sources.mlflow.download_model", lambda *_: tmp_path / "downloaded")
        return PLACES[entry.name](tmp_path)

    @pytest.fixture
    def context(self) -> SourceContext:
        size = encoder_parts("fixed positions").size
        return SourceContext(size=size)


class TestTrackers(TrackerContract):
    pytestmark = MLFLOW_WARNINGS
    entry = each_of(TRACKERS)
    patience_seconds = 240.0  # MLflow makes the tables of a new store first

    @pytest.fixture
    def params(self, entry: Entry[Tracker], tmp_path: Path) -> ComponentParams:
        settings = {"uri": f"sqlite:///{tmp_path}/mlflow.db"} if entry.name == "mlflow" else {}
        return entry.config_type(**settings)
