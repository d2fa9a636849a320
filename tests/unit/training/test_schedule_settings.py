"""Every field of the `optimizer` section and of the EMA schedules changes what it says it changes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_lab.registry import Entry
from jepa_lab.training.ema.base import EMA_SCHEDULES
from jepa_lab.training.optimizer import build_optimizer
from jepa_lab.training.schedules import OptimizerSettings, Schedules
from tests.golden.reference import build_reference_model, load_reference

# Field -> a value, what else is set on both sides, and what follows it.
OPTIMIZER: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "learning_rate": (0.5, {}, {"learning_rate"}),
    "start_learning_rate": (0.0, {}, {"learning_rate"}),
    "final_learning_rate": (1e-4, {}, {"learning_rate"}),
    "warmup_fraction": (0.5, {}, {"learning_rate"}),
    "warmup_epochs": (3, {}, {"learning_rate"}),
    "layer_decay": (0.75, {}, {"scales"}),
    "layer_decay_embedding": (False, {"layer_decay": 0.75}, {"scales"}),
    "weight_decay": (0.1, {}, {"weight_decay", "predictor_weight_decay"}),
    "final_weight_decay": (0.4, {}, {"weight_decay", "predictor_weight_decay"}),
    "predictor_weight_decay": (0.1, {}, {"predictor_weight_decay"}),
    "predictor_final_weight_decay": (0.4, {"predictor_weight_decay": 0.1}, {"predictor_weight_decay"}),
    "schedule_stretch": (
        1.5,
        {"final_weight_decay": 0.4},
        {"learning_rate", "weight_decay", "predictor_weight_decay", "ema_momentum"},
    ),
    "betas": ((0.8, 0.95), {}, {"betas"}),
    "eps": (1e-6, {}, {"eps"}),
    "decay_mask_token": (False, {}, {"decays"}),
    "decay_biases_and_norms": (True, {}, {"decays"}),
    "decay_positions": (False, {}, set()),  # sincos has nothing to decay; see test_parameter_groups.py for learned ones
}
EMA: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "constant": {"value": (0.5, {})},
    **{
        name: {
            "start": (0.9, {}),
            "end": (0.999, {}),
            "warmup_fraction": (0.25, {}),
            "warmup_start": (0.5, {"warmup_fraction": 0.25}),
        }
        for name in ("linear", "cosine")
    },
}


def observe(**settings: Any) -> dict[str, Any]:
    """All that the section decides, on the reference's small model over 4 epochs of 5 steps."""
    chosen, steps = OptimizerSettings(**settings), range(1, 21)
    schedules = Schedules(
        chosen, EMA_SCHEDULES.get("linear").component(EMA_SCHEDULES.get("linear").params_type()), 4, 5
    )
    model = build_reference_model(load_reference())
    groups = build_optimizer(model, chosen).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    curves = ("learning_rate", "weight_decay", "predictor_weight_decay", "ema_momentum")
    return {
        **{name: [getattr(schedules, name)(step) for step in steps] for name in curves},
        "betas": next(group["betas"] for group in groups),
        "eps": next(group["eps"] for group in groups),
        "scales": {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]},
        "decays": {names[id(p)]: group["decay"] for group in groups for p in group["params"]},
    }


@pytest.mark.parametrize("field", OptimizerSettings.model_fields)
def test_every_optimizer_setting_changes_what_it_says_and_nothing_else(field: str) -> None:
    value, others, expected = OPTIMIZER[field]
    before, after = observe(**others), observe(**others, **{field: value})
    assert {name for name in before if before[name] != after[name]} == expected


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in EMA_SCHEDULES])
def test_every_parameter_of_an_ema_schedule_changes_its_curve(entry: Entry) -> None:
    def curve(**params: Any) -> list[float]:
        ema = entry.component(entry.params_type(**params))
        return [ema.momentum(step / 20) for step in range(20)]

    changes = EMA[entry.name]
    assert set(changes) == set(entry.params_type.model_fields)
    for field, (value, others) in changes.items():
        assert curve(**others) != curve(**others, **{field: value}), field
