"""Safetensors: `safetensors.numpy.load_file(file)["features"]`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from jepa_lab.feature_files.formats.base import FEATURE_FORMATS, FeatureFormat, FeatureTable

_ALIGNMENT = 8


@FEATURE_FORMATS.register(
    "safetensors",
    summary="A safetensors file with the tensor features; paths is uint8, the UTF-8 text of a JSON list.",
    source="safetensors",
)
class SafetensorsFeatures(FeatureFormat):
    """The library writes whole tensors alone, so the header (JSON after its length) is written here."""

    def write(self, table: FeatureTable, path: Path) -> None:
        paths = json.dumps(list(table.paths), ensure_ascii=False).encode()
        size = 4 * math.prod(table.shape)
        header = {
            "__metadata__": {"jepa_lab": table.description},
            "features": {"dtype": "F32", "shape": list(table.shape), "data_offsets": [0, size]},
            "paths": {"dtype": "U8", "shape": [len(paths)], "data_offsets": [size, size + len(paths)]},
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _, features in table.parts:
                file.write(np.ascontiguousarray(features, "<f4").data)
            file.write(paths)
