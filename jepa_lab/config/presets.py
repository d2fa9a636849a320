"""Presets: overlays between a pipeline file and the overrides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jepa_lab.config.documents import Document
from jepa_lab.config.pipeline import END_MONITORS
from jepa_lab.errors import ConfigError
from jepa_lab.registry import did_you_mean

Overlay = dict[str, Any]


def apply_preset(name: str, document: Document, root_given: bool) -> None:
    """Write a preset's values over the file's.

    Args:
        root_given: whether the command line names `data.root`.
    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name!r} is unknown{did_you_mean(name, PRESETS)}")
    for key, value in PRESETS[name](document.data, root_given).items():
        document.set(tuple(key.split(".")), value, f"preset {name}")


def smoke(data: dict[str, Any], root_given: bool) -> Overlay:
    """The whole job in about ten seconds on a CPU: little data, a small encoder, two epochs.

    It keeps the patch grid and never touches what an ablation studies: masker, positions, losses, targets,
    EMA, learning rate, augmentation, and the predictor, but that a free size made for an encoder many times as wide
    becomes half of the small one (an arm's own size is written later). Four blocks are enough for any choice of probe
    layers, the images for two of each of 100 classes. Without `data.root` the images are digits, with 2-pixel patches.
    """
    overlay: Overlay = {
        "data.max_images": 256,
        "encoder.size": {"name": "custom", "embed_dim": 48, "depth": 4, "num_heads": 3},
        "optimizer.warmup_epochs": None,
        "optimizer.warmup_fraction": 0.1,
        "training.epochs": 2,
        "training.batch_size": 32,
        "training.log_every_steps": 2,
        "probe.every_epochs": 1,
    }
    overlay |= _few_fits(_section(data, "probe"))
    overlay |= _few_views(_section(data, "monitors"))
    width = _section(_section(data, "predictor"), "size").get("embed_dim")
    if isinstance(width, int) and width > _WIDEST_PREDICTOR:
        overlay["predictor.size"] = {"name": "half"}
    if _section(data, "training").get("accumulation_steps", 1) != 1:
        overlay["training.accumulation_steps"] = 2
    images, encoder = _section(data, "data"), _section(data, "encoder")
    if not root_given and images.get("root") is None:
        overlay.update({"data.dataset": {"name": "digits"}, "data.channel_mean": None, "data.channel_std": None})
        # For image files only.
        overlay.update({"data.cache": False, "data.labels": "auto", "data.validation_split": "fraction"})
        overlay["data.resize"] = None  # chosen for larger images
        image_size, patch_size = images.get("image_size"), encoder.get("patch_size")
        # Numbers that do not fit stay as they are, and are refused with their lines.
        if (
            isinstance(image_size, int)
            and isinstance(patch_size, int)
            and patch_size > 0
            and image_size % patch_size == 0
        ):
            overlay.update({"data.image_size": image_size // patch_size * 2, "encoder.patch_size": 2})
            probed = _section(data, "probe").get("image_size")
            if isinstance(probed, int) and probed % patch_size == 0:
                overlay["probe.image_size"] = probed // patch_size * 2
    return overlay


_WIDEST_PREDICTOR = 96
"""Twice the small encoder's width; wider ones take minutes."""

_FEW_FITS: dict[str, dict[str, Any]] = {
    "attentive": {"epochs": 2, "learning_rates": [0.01], "weight_decays": [0.01]},
    "finetune": {"epochs": 1},
    "layerwise": {"c_grid": [0.01]},
    "linear_ijepa": {"epochs": 1, "learning_rates": [0.05], "weight_decays": [0.0]},
    "linear_sgd": {"epochs": 5, "learning_rates": [0.1], "ridges": [0.1]},
    "logistic": {"c_grid": [0.1]},
    "low_shot": {"c_grid": [0.1], "draws": 2},
    "segmentation": {"epochs": 1, "learning_rates": [0.01]},
}
"""Parameters with which a probe takes a second or two. A grid of one value chooses nothing, so that nobody is advised
to extend a grid that the preset cut short."""


def _few_fits(probe: dict[str, Any]) -> Overlay:
    """Short probes; components of third parties stay as they are."""
    overlay: Overlay = {}
    method, additional = probe.get("method"), probe.get("additional")
    if isinstance(method, dict):
        overlay["probe.method"] = _shortened(method, _FEW_FITS)
    if isinstance(additional, list):
        overlay["probe.additional"] = [_shortened(item, _FEW_FITS) for item in additional]
    return {key: value for key, value in overlay.items() if value != probe[key.removeprefix("probe.")]}


_FEW_VIEWS: dict[str, dict[str, Any]] = {"lidar": {"images": 64, "views": 4}}
"""Parameters with which a monitor takes no time."""


def _few_views(monitors: dict[str, Any]) -> Overlay:
    """Short monitors at the end; components of third parties stay as they are."""
    given = monitors.get("end", [{"name": name} for name in END_MONITORS])
    if not isinstance(given, list):
        return {}
    short = [_shortened(item, _FEW_VIEWS) for item in given]
    return {} if short == given else {"monitors.end": short}


def _shortened(component: Any, by_name: dict[str, dict[str, Any]]) -> Any:
    name = component.get("name") if isinstance(component, dict) else None
    return component | by_name[name] if isinstance(name, str) and name in by_name else component


def _section(data: dict[str, Any], key: str) -> dict[str, Any]:
    section = data.get(key)
    return section if isinstance(section, dict) else {}


PRESETS: dict[str, Callable[[dict[str, Any], bool], Overlay]] = {"smoke": smoke}
