"""A folder that `jepa-lab export --to safetensors` wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path

from jepa_lab.errors import ConfigError
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.plain import parts_of_plain
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource
from jepa_lab.weights.state_files import read_tensor_file

DESCRIPTION = "encoder.json"


@WEIGHT_SOURCES.register("export", summary="A folder that `jepa-lab export --to safetensors` wrote.", source="jepa-lab")
class ExportSource(WeightSource):
    """Weights, positions and a description."""

    def recognises(self, text: str, context: SourceContext) -> bool:
        return os.path.isfile(Path(text) / DESCRIPTION)  # False, too, for a text that no file can have as its name

    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        folder = Path(text)
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        state = read_tensor_file(folder / "model.safetensors")
        try:
            parts = parts_of_plain(description, state)
        except (KeyError, RuntimeError) as error:
            raise ConfigError(
                f"{folder} is not what `jepa-lab export --to safetensors` wrote ({str(error).splitlines()[0]}); export "
                "it again"
            ) from error
        return ForeignEncoder(parts, text, (), knows_normalization=True)
