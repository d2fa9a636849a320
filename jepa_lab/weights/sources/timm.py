"""A folder that timm wrote: config.json with an architecture, and the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jepa_lab.errors import ConfigError
from jepa_lab.weights.foreign_weights import ForeignEncoder, Origin
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource
from jepa_lab.weights.state_files import read_tensor_file, tensors_of
from jepa_lab.weights.timm_names import from_timm_names, width_of

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@WEIGHT_SOURCES.register(
    "timm", summary="A folder in timm's format: config.json with an architecture, and model.safetensors.", source="timm"
)
class TimmSource(WeightSource):
    """Plain vision transformers, with or without a class token."""

    def recognises(self, text: str, context: SourceContext) -> bool:
        return "architecture" in config_of(Path(text))

    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        folder = Path(text)
        config = config_of(folder)
        file = weights_file(folder, _WEIGHTS)
        state = tensors_of(read_tensor_file(file), "state_dict", file)
        return from_timm_names(state, origin_of_timm(text, config, width_of(state, text), context))


def config_of(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """Content of a JSON file of a folder; empty where there is none that can be read."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def weights_file(folder: Path, names: tuple[str, ...]) -> Path:
    """The file of the weights.

    Raises:
        ConfigError: there is none.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ConfigError(f"{folder} holds a {CONFIG} and no weights; put {' or '.join(names)} beside it")
    return found


def origin_of_timm(text: str, config: dict[str, Any], width: int, context: SourceContext) -> Origin:
    """What timm's configuration says beside the weights.

    Raises:
        ConfigError: the architecture computes something else than a plain vision transformer.
    """
    architecture = str(config.get("architecture", ""))
    if "quickgelu" in architecture or "clip" in architecture:
        raise ConfigError(f"{text} is a {architecture}, whose blocks differ from those of a plain vision transformer")
    arguments, pretrained = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    size = arguments.get("img_size") or (pretrained.get("input_size") or [0])[-2:]
    height, width_px = (size, size) if isinstance(size, int) else (size[0], size[-1])
    mean, std = pretrained.get("mean"), pretrained.get("std")
    return Origin(
        source=text,
        num_heads=arguments.get("num_heads") or context.heads_of_width(width),
        image_size=(height, width_px) if height else None,
        mean=tuple(mean) if mean else None,
        std=tuple(std) if std else None,
        crop_fraction=float(pretrained.get("crop_pct") or 1.0),
    )
