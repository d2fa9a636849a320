"""A model whose files the Hugging Face hub's own tools have already brought here; nothing is downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jepa_lab.errors import ConfigError
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource, load_source

_NAME = re.compile(r"(?:([A-Za-z0-9_.-]+)/)?([A-Za-z0-9_.-]+)")


@WEIGHT_SOURCES.register(
    "cached",
    summary="The name of a model in the cache of the Hugging Face hub, such as facebook/ijepa_vith14_1k; a bare name "
    "is one of timm's.",
    source="huggingface_hub",
)
class CachedSource(WeightSource):
    """Its folder is read like any other."""

    def recognises(self, text: str, context: SourceContext) -> bool:
        return not os.path.exists(text) and _folder(text) is not None

    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        folder = _folder(text)
        assert folder is not None, "recognised"
        snapshots = sorted(path for path in (folder / "snapshots").glob("*") if path.is_dir())
        main = folder / "refs" / "main"
        if main.is_file():
            snapshots = [folder / "snapshots" / main.read_text(encoding="utf-8").strip()]
        if not snapshots or not (snapshots[-1] / "config.json").is_file():
            raise ConfigError(
                f"{text} is in the cache {cache_of_hub()} without its config.json; fetch config.json and "
                "model.safetensors of it again"
            )
        return load_source(str(snapshots[-1]), context)


def cache_of_hub() -> Path:
    """Where the hub's tools keep files, by their own variables."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _folder(text: str) -> Path | None:
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    folder = cache_of_hub() / f"models--{found[1] or 'timm'}--{found[2]}"
    return folder if os.path.isdir(folder) else None
