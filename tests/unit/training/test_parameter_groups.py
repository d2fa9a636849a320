"""Which learning rate and weight decay every parameter gets, and that AdamW then applies them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jepa_lab.grid import Grid
from jepa_lab.losses.smooth_l1 import SmoothL1Loss, SmoothL1Params
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.learned import LearnedPosition
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TargetInputs
from jepa_lab.targets.features import FeaturesParams, FeaturesTarget
from jepa_lab.training.checkpoint import optimizer_tensors, restore_optimizer
from jepa_lab.training.ema.constant import ConstantEma, ConstantParams
from jepa_lab.training.optimizer import build_optimizer, gated_step
from jepa_lab.training.parameter_groups import Decay, group_parameters, parameter_decays
from jepa_lab.training.schedules import OptimizerSettings, Schedules
from jepa_lab.training.step_numbers import StepNumbers
from tests.golden.reference import build_reference_model, build_reference_step, load_reference, take

DEPTH = 3
PEAK = {"learning_rate": 0.1, "start_learning_rate": 0.1, "final_learning_rate": 0.1, "warmup_epochs": 0}


@pytest.fixture
def model() -> IJepa:
    def position(width: int) -> LearnedPosition:
        return LearnedPosition(ComponentParams(), Grid(4, 4), width, 2)

    encoder = VisionTransformer(Grid(4, 4), 2, 1, ModelSize(16, DEPTH, 2), position(16))
    predictor = Predictor(16, ModelSize(8, 2, 2), position(8))
    model = IJepa(
        encoder,
        predictor,
        FeaturesTarget(FeaturesParams(), TargetInputs(16, DEPTH, 2, 1)),
        SmoothL1Loss(SmoothL1Params()),
    )
    initialize_weights(model, torch.Generator().manual_seed(0))
    return model


def take_step(model: IJepa, gradient: float, **settings: object) -> torch.optim.AdamW:
    """One step in which every gradient element is `gradient`."""
    chosen = OptimizerSettings(**{**PEAK, **settings})
    optimizer = build_optimizer(model, chosen)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient) if parameter.requires_grad else None
    numbers = StepNumbers(optimizer, Schedules(chosen, ConstantEma(ConstantParams()), 1, 1), torch.device("cpu"))
    numbers.set(1)
    gated_step(optimizer, torch.tensor(0.0), numbers.shrinkage)
    return optimizer


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def expected_scale(name: str, layer_decay: float, of_embedding: bool) -> float:
    """The factor that a name calls for, read off the name alone."""
    if name.startswith(("context_encoder.patch_embed.", "context_encoder.position.")):
        return layer_decay**DEPTH if of_embedding else 1.0
    if name.startswith("context_encoder.blocks."):
        return layer_decay ** (DEPTH - 1 - int(name.split(".")[2]))
    return 1.0


@pytest.mark.parametrize(("layer_decay", "of_embedding"), [(1.0, True), (0.75, True), (0.75, False)])
def test_every_parameter_moves_by_its_layer_s_learning_rate(
    model: IJepa, layer_decay: float, of_embedding: bool
) -> None:
    before = weights(model)
    chosen = {"layer_decay": layer_decay, "layer_decay_embedding": of_embedding}
    take_step(model, gradient=1.0, weight_decay=0.0, **chosen)
    for name, after in weights(model).items():
        # AdamW's first step moves every element by the learning rate.
        moved = (before[name] - after).mean().item()
        assert moved == pytest.approx(0.1 * expected_scale(name, layer_decay, of_embedding), rel=1e-4), name


def test_weight_decay_is_that_of_encoder_or_predictor_and_none_on_vectors(model: IJepa) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    take_step(model, gradient=0.0, weight_decay=0.5, predictor_weight_decay=0.25)
    for name, after in weights(model).items():
        decay = 0.0 if after.ndim == 1 else 0.25 if name.startswith("predictor.") else 0.5
        assert torch.allclose(after, torch.full_like(after, 1 - 0.1 * decay)), name


def test_the_predictor_s_weight_decay_is_the_encoder_s_by_default(model: IJepa) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    take_step(model, gradient=0.0, weight_decay=0.5)
    assert {round(after.mean().item(), 5) for after in weights(model).values()} == {1.0, 0.95}


def test_weight_decay_shrinks_with_the_layer_s_learning_rate(model: IJepa) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    take_step(model, gradient=0.0, weight_decay=0.5, layer_decay=0.5)
    first = model.context_encoder.blocks[0].attn.qkv.weight
    assert torch.allclose(first, torch.full_like(first, 1 - 0.1 * 0.5**2 * 0.5))


def test_biases_and_norms_are_decayed_by_choice(model: IJepa) -> None:
    decays = parameter_decays(model, OptimizerSettings(decay_biases_and_norms=True))
    assert set(decays.values()) == {Decay.ENCODER, Decay.PREDICTOR}
    spared = {"decay_mask_token": False, "decay_positions": False}
    decays = parameter_decays(model, OptimizerSettings(decay_biases_and_norms=True, **spared))
    undecayed = {name.rsplit(".", 1)[-1] for name, decay in decays.items() if decay is Decay.NONE}
    assert undecayed == {"mask_token", "position_embedding"}


def test_layer_scales_and_other_vectors_are_not_decayed_wherever_they_are(model: IJepa) -> None:
    model.context_encoder.blocks[1].register_parameter("gamma", nn.Parameter(torch.ones(16)))
    model.predictor.register_parameter("gain", nn.Parameter(torch.ones(8)))
    decays = parameter_decays(model, OptimizerSettings())
    assert decays["context_encoder.blocks.1.gamma"] == decays["predictor.gain"] == Decay.NONE
    plain = {name.rsplit(".", 1)[-1] for name, decay in decays.items() if decay is Decay.NONE}
    assert plain == {"weight", "bias", "gamma", "gain"}
    group = next(g for g in group_parameters(model, OptimizerSettings(layer_decay=0.5)) if g["lr_scale"] == 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(names[id(p)].startswith("context_encoder.blocks.1.") for p in group["params"])


def test_groups_hold_every_trainable_parameter_once(model: IJepa) -> None:
    for settings, count in (({}, 3), ({"layer_decay": 0.75}, 2 * (DEPTH + 1) + 1)):
        groups = group_parameters(model, OptimizerSettings(**settings))
        held = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
        assert len({(group["lr_scale"], group["decay"]) for group in groups}) == len(groups) == count


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("decay_mask_token", {"predictor.mask_token"}),
        (
            "decay_positions",
            {"context_encoder.position.position_embedding", "predictor.position.position_embedding"},
        ),
    ],
)
def test_mask_token_and_learned_positions_are_decayed_by_choice(model: IJepa, setting: str, names: set[str]) -> None:
    with_decay = parameter_decays(model, OptimizerSettings(**{setting: True}))
    without = parameter_decays(model, OptimizerSettings(**{setting: False}))
    assert {name for name in without if without[name] is not with_decay[name]} == names
    assert {without[name] for name in names} == {Decay.NONE}


@pytest.mark.parametrize("settings", [{"betas": (0.5, 0.25)}, {"betas": (0.0, 0.0)}, {"eps": 0.5}])
def test_adamw_uses_the_given_moments_and_epsilon(model: IJepa, settings: dict[str, object]) -> None:
    before = weights(model)
    chosen = OptimizerSettings(**{**PEAK, "weight_decay": 0.0, **settings})
    optimizer = build_optimizer(model, chosen)
    numbers = StepNumbers(optimizer, Schedules(chosen, ConstantEma(ConstantParams()), 1, 1), torch.device("cpu"))
    (first, second), mean, square, moved = chosen.betas, 0.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, -3.0, 0.5), start=1):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient) if parameter.requires_grad else None
        numbers.set(1)
        gated_step(optimizer, torch.tensor(0.0), numbers.shrinkage)
        mean = first * mean + (1 - first) * gradient  # Loshchilov and Hutter 2019, algorithm 2, by hand
        square = second * square + (1 - second) * gradient**2
        moved += 0.1 * (mean / (1 - first**step)) / ((square / (1 - second**step)) ** 0.5 + chosen.eps)
    for name, after in weights(model).items():
        assert (before[name] - after).mean().item() == pytest.approx(moved, rel=1e-3, abs=1e-6), name


def test_training_with_many_groups_goes_on_bitwise_from_a_checkpoint() -> None:
    settings = {"layer_decay": 0.75, "predictor_weight_decay": 0.01, "predictor_final_weight_decay": 0.1}
    reference = load_reference()
    whole, begun, resumed = (build_reference_step(build_reference_model(reference), **settings) for _ in range(3))
    for number in range(4):
        take(whole, reference.images(number), reference.masks(number), number + 1)
    for number in range(2):
        take(begun, reference.images(number), reference.masks(number), number + 1)
    saved = optimizer_tensors(begun.model, begun.optimizer)
    trained = {name for name, p in begun.model.named_parameters() if p.requires_grad}
    assert {path.rpartition("/")[0] for path in saved} == trained
    resumed.model.load_state_dict(begun.model.state_dict())
    restore_optimizer(resumed.model, resumed.optimizer, saved)
    for number in range(2, 4):
        take(resumed, reference.images(number), reference.masks(number), number + 1)
    after = resumed.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in whole.model.state_dict().items())
