"""What a preset changes of an ablation itself; its pipelines get the preset of the same name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jepa_lab.errors import ConfigError
from jepa_lab.registry import did_you_mean
from jepa_lab.sweeps.ablation import Ablation, AblationFile, Budget

SMOKE_SEEDS = 2
SMOKE_TRIALS = 4


def apply_ablation_preset(name: str, file: AblationFile) -> AblationFile:
    """The ablation with a preset's changes.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in ABLATION_PRESETS:
        raise ConfigError(f"--preset {name!r} is unknown{did_you_mean(name, ABLATION_PRESETS)}")
    return replace(file, ablation=file.ablation.model_copy(update=ABLATION_PRESETS[name](file.ablation)))


def smoke(ablation: Ablation) -> dict[str, Any]:
    """Every arm with two seeds, or a search of four trials; never another arm, value or metric."""
    update: dict[str, Any] = {"seeds": ablation.seeds[:SMOKE_SEEDS]}
    if ablation.split_seeds is not None:
        update["split_seeds"] = ablation.split_seeds[:SMOKE_SEEDS]
    if ablation.budget is not None:
        trials = ablation.budget.trials or SMOKE_TRIALS
        update["budget"] = Budget(trials=min(trials, SMOKE_TRIALS))
    return update


ABLATION_PRESETS: dict[str, Callable[[Ablation], dict[str, Any]]] = {"smoke": smoke}
