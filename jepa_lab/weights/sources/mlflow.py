"""A model that a run of jepa-lab logged to MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.mlflow_download import SCHEMES, download_model
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource
from jepa_lab.weights.sources.run import encoder_of_files


@WEIGHT_SOURCES.register(
    "mlflow",
    summary="A model of jepa-lab in MLflow: models:/NAME/VERSION, models:/m-..., or runs:/RUN_ID.",
    source="MLflow",
)
class MlflowSource(WeightSource):
    """The files are downloaded, read and deleted."""

    may_hold_both = True

    def recognises(self, text: str, context: SourceContext) -> bool:
        return text.startswith(SCHEMES)

    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        with tempfile.TemporaryDirectory() as folder:
            files = download_model(text, context.uri, Path(folder))
            config, weights = files / "config.yaml", files / "model.safetensors"
            if not (config.is_file() and weights.is_file()):
                held = ", ".join(sorted(file.name for file in files.iterdir())) or "nothing"
                raise ConfigError(f"{text} is not a model of jepa-lab: it holds {held}")
            return encoder_of_files(config, weights, text, context.encoder)
