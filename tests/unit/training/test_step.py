"""The training step: refusing non-finite updates, accumulation, clipping, groups, EMA."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.losses.smooth_l1 import SmoothL1Loss, SmoothL1Params
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.positions.learned import LearnedPosition
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TargetInputs
from jepa_lab.targets.features import FeaturesParams, FeaturesTarget
from jepa_lab.training.finite import FiniteGate
from jepa_lab.training.optimizer import decayed_parameters
from jepa_lab.training.schedules import OptimizerSettings
from tests.golden.reference import Reference, build_reference_model, build_reference_step, load_reference


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_reference()


def snapshot(model: IJepa) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_non_finite_batch_changes_neither_weights_nor_moments_nor_ema(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    step(reference.images(0), reference.masks(0), 1)
    weights = snapshot(step.model)
    moments = [value.clone() for state in step.optimizer.state.values() for value in (state["exp_avg"], state["step"])]
    poisoned = reference.images(1).clone()
    poisoned[0, 0, 0, 0] = float("nan")
    statistics = step(poisoned, reference.masks(1), 2)
    assert statistics.refused == 1
    assert same(weights, snapshot(step.model))
    after = [value for state in step.optimizer.state.values() for value in (state["exp_avg"], state["step"])]
    assert all(torch.equal(before, now) for before, now in zip(moments, after, strict=True))
    assert int(step.gate.stopped_at) == 2


def test_after_a_refused_step_the_weights_stay_those_of_the_last_good_step(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    step(torch.full_like(reference.images(0), float("inf")), reference.masks(0), 1)
    weights = snapshot(step.model)
    step(reference.images(1), reference.masks(1), 2)
    assert same(weights, snapshot(step.model))


def test_fp16_gate_halves_the_scale_and_stops_only_after_twenty_refusals_in_a_row() -> None:
    gate = FiniteGate.open(torch.device("cpu"), "fp16")
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    for step in range(1, 20):
        assert gate.judge(bad, good, step) == 1
    assert int(gate.stopped_at) == 0
    assert gate.judge(good, good, 20) == 0
    assert gate.loss_scale == 65536 / 2**19
    for step in range(21, 41):
        gate.judge(bad, good, step)
    assert int(gate.stopped_at) == 21
    assert gate.judge(good, good, 41) == 1


def test_fp16_gate_doubles_the_scale_after_two_thousand_good_steps() -> None:
    gate = FiniteGate.open(torch.device("cpu"), "fp16")
    for step in range(1, 2001):
        gate.judge(torch.tensor(1.0), torch.tensor(1.0), step)
    assert gate.loss_scale == 2 * 65536


def test_accumulated_parts_equal_the_whole_batch(reference: Reference) -> None:
    whole = build_reference_step(build_reference_model(reference))
    parts = build_reference_step(build_reference_model(reference))
    parts.parts = 4
    for number in range(3):
        first = whole(reference.images(number), reference.masks(number), number + 1)
        second = parts(reference.images(number), reference.masks(number), number + 1)
        assert second.loss.item() == pytest.approx(first.loss.item(), abs=1e-12)
    for name, tensor in whole.model.state_dict().items():
        assert torch.allclose(tensor, parts.model.state_dict()[name], atol=1e-12), name


def test_clipping_bounds_the_norm_of_all_gradients_together(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    step.clip_norm = 1e-3
    seen = {}

    def record(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen["norm"] = torch.nn.utils.get_total_norm(gradients).item()

    step.optimizer.register_step_pre_hook(record)
    statistics = step(reference.images(0), reference.masks(0), 1)
    assert seen["norm"] == pytest.approx(1e-3, rel=1e-2)
    assert torch.hypot(statistics.encoder_gradient_norm, statistics.predictor_gradient_norm) > 1e-2


def test_biases_and_norms_are_not_decayed_and_the_mask_token_is(reference: Reference) -> None:
    model = build_reference_model(reference)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = decayed_parameters(model, OptimizerSettings())
    assert {names[id(p)].rsplit(".", 1)[-1] for p in plain} == {"weight", "bias"}
    assert all(p.ndim == 1 for p in plain)
    assert "predictor.mask_token" in {names[id(p)] for p in decayed}
    assert len(decayed) + len(plain) == sum(p.requires_grad for p in model.parameters())
    _, plain = decayed_parameters(model, OptimizerSettings(decay_mask_token=False))
    assert "predictor.mask_token" in {names[id(p)] for p in plain}


def test_learned_positions_are_decayed_by_choice() -> None:
    def position(width: int) -> LearnedPosition:
        return LearnedPosition(ComponentParams(), Grid(4, 4), width, 2)

    encoder = VisionTransformer(Grid(4, 4), 2, 1, ModelSize(16, 1, 2), position(16))
    model = IJepa(
        encoder,
        Predictor(16, ModelSize(8, 1, 2), position(8)),
        FeaturesTarget(FeaturesParams(), TargetInputs(16, 1, 2, 1)),
        SmoothL1Loss(SmoothL1Params()),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    learned = {"context_encoder.position.position_embedding", "predictor.position.position_embedding"}
    for decay in (True, False):
        groups = decayed_parameters(model, OptimizerSettings(decay_positions=decay))
        decayed, plain = ({names[id(parameter)] for parameter in group} for group in groups)
        assert learned <= (decayed if decay else plain)
        assert not learned & (plain if decay else decayed)


def test_momentum_one_freezes_and_momentum_zero_copies(reference: Reference) -> None:
    model = build_reference_model(reference)
    with torch.no_grad():
        for parameter in model.context_encoder.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in model.target_encoder.parameters()]
    model.update_target_encoder(1.0, torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(before, model.target_encoder.parameters(), strict=True))
    model.update_target_encoder(0.0, torch.tensor(1.0))
    pairs = zip(model.context_encoder.parameters(), model.target_encoder.parameters(), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)
