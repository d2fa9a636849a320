"""The training step: refusing non-finite updates, clipping, half precision, EMA."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.models.ijepa import IJepa
from jepa_lab.training.devices import Compute
from jepa_lab.training.finite import FiniteGate
from jepa_lab.training.step import TrainingStep
from tests.golden.reference import Reference, build_reference_model, build_reference_step, load_reference, take


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_reference()


def snapshot(model: IJepa) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_non_finite_batch_changes_neither_weights_nor_moments_nor_ema(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    take(step, reference.images(0), reference.masks(0), 1)
    weights = snapshot(step.model)
    moments = [value.clone() for state in step.optimizer.state.values() for value in (state["exp_avg"], state["step"])]
    poisoned = reference.images(1).clone()
    poisoned[0, 0, 0, 0] = float("nan")
    statistics = take(step, poisoned, reference.masks(1), 2)
    assert statistics.refused == 1
    assert same(weights, snapshot(step.model))
    after = [value for state in step.optimizer.state.values() for value in (state["exp_avg"], state["step"])]
    assert all(torch.equal(before, now) for before, now in zip(moments, after, strict=True))
    assert int(step.gate.stopped_at) == 2


def test_a_skipped_batch_is_as_if_it_had_not_been_given(reference: Reference) -> None:
    with_it, without = (build_reference_step(build_reference_model(reference)) for _ in range(2))
    with_it.gate = FiniteGate.open(torch.device("cpu"), "fp32", max_skipped=1)
    for step in (with_it, without):
        take(step, reference.images(0), reference.masks(0), 1)
    poisoned = torch.full_like(reference.images(1), float("nan"))
    assert take(with_it, poisoned, reference.masks(1), 2).refused == 1
    for step in (with_it, without):
        assert take(step, reference.images(2), reference.masks(2), 3).refused == 0
    assert same(snapshot(with_it.model), snapshot(without.model))


def test_after_a_refused_step_the_weights_stay_those_of_the_last_good_step(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    take(step, torch.full_like(reference.images(0), float("inf")), reference.masks(0), 1)
    weights = snapshot(step.model)
    take(step, reference.images(1), reference.masks(1), 2)
    assert same(weights, snapshot(step.model))


def seen_gradients(step: TrainingStep) -> list[torch.Tensor]:
    """The gradients that the optimizer will be given, filled when the step is taken."""
    seen: list[torch.Tensor] = []

    def record(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        seen.extend(p.grad.clone() for p in step.model.parameters() if p.grad is not None)

    step.optimizer.register_step_pre_hook(record)
    return seen


def test_clipping_is_that_of_all_gradients_together(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    step.clip_norm = 1e-3
    seen = seen_gradients(step)
    statistics = take(step, reference.images(0), reference.masks(0), 1)
    oracle = build_reference_model(reference)
    oracle(reference.images(0), reference.masks(0)).loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(oracle.parameters(), 1e-3)
    expected = [p.grad for p in oracle.parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(seen).item() == pytest.approx(1e-3, rel=1e-4)
    for ours, theirs in zip(seen, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=0)
    # What is reported is the norm before clipping.
    reported = torch.hypot(statistics.encoder_gradient_norm, statistics.predictor_gradient_norm)
    assert reported.item() == pytest.approx(norm.item(), rel=1e-9)
    assert norm > 1e-2


def test_gradients_below_the_clipping_norm_stay_as_they_are(reference: Reference) -> None:
    free, bounded = (build_reference_step(build_reference_model(reference)) for _ in range(2))
    bounded.clip_norm = 1e6
    for step in (free, bounded):
        take(step, reference.images(0), reference.masks(0), 1)
    assert same(snapshot(free.model), snapshot(bounded.model))


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_the_loss_scale_of_fp16_leaves_no_trace_in_the_update(reference: Reference, clip_norm: float | None) -> None:
    plain, scaled = (build_reference_step(build_reference_model(reference)) for _ in range(2))
    scaled.gate = FiniteGate.open(torch.device("cpu"), "fp16")
    assert scaled.gate.loss_scale == 65536
    for number in range(2):
        norms = []
        for step in (plain, scaled):
            step.clip_norm = clip_norm
            statistics = take(step, reference.images(number), reference.masks(number), number + 1)
            norms.append(statistics.encoder_gradient_norm.item())
        assert norms[0] == pytest.approx(norms[1], rel=1e-12)
    for name, tensor in plain.model.state_dict().items():
        assert torch.allclose(tensor, scaled.model.state_dict()[name], rtol=0, atol=1e-14), name


def test_a_gradient_that_overflows_under_the_loss_scale_is_refused_and_the_scale_halved(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    step.gate = FiniteGate.open(torch.device("cpu"), "fp16")
    step.gate.loss_scale = torch.tensor(1.7e308, dtype=torch.float64)  # the loss is 1, the gradients overflow
    with torch.no_grad():
        step.model.predictor.proj.weight.mul_(1e3)
    weights = snapshot(step.model)
    statistics = take(step, reference.images(0), reference.masks(0), 1)
    assert statistics.loss.isfinite()
    assert statistics.refused == 1
    assert same(weights, snapshot(step.model))
    assert step.gate.loss_scale == 0.85e308
    step.gate.loss_scale = torch.tensor(1024.0)
    assert take(step, reference.images(1), reference.masks(1), 2).refused == 0
    assert not same(weights, snapshot(step.model))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_for_products_and_weights_and_gradients_stay_single(
    reference: Reference, precision: str, dtype: torch.dtype
) -> None:
    step = build_reference_step(build_reference_model(reference).float())
    step.compute = Compute(torch.device("cpu"), precision, False)
    step.gate = FiniteGate.open(torch.device("cpu"), precision)
    widths: set[torch.dtype] = set()
    step.model.context_encoder.blocks[0].mlp.register_forward_hook(lambda *call: widths.add(call[2].dtype))
    seen = seen_gradients(step)
    statistics = take(step, reference.images(0).float(), reference.masks(0), 1)
    assert widths == {dtype}
    assert {gradient.dtype for gradient in seen} == {torch.float32}
    assert statistics.refused == 0
    assert statistics.loss.item() == pytest.approx(reference.config["losses"][0], rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in step.model.state_dict().values())


def test_momentum_one_freezes_and_momentum_zero_copies(reference: Reference) -> None:
    model = build_reference_model(reference)
    with torch.no_grad():
        for parameter in model.context_encoder.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in model.target_encoder.parameters()]
    model.update_target_encoder(torch.tensor(0.0))
    assert all(torch.equal(a, b) for a, b in zip(before, model.target_encoder.parameters(), strict=True))
    model.update_target_encoder(torch.tensor(1.0))
    pairs = zip(model.context_encoder.parameters(), model.target_encoder.parameters(), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)


@pytest.mark.parametrize("side", ["encoder_parameters", "predictor_parameters"])
def test_a_gradient_that_is_not_finite_on_either_side_is_refused_though_the_loss_is_finite(
    reference: Reference, side: str
) -> None:
    step = build_reference_step(build_reference_model(reference))
    parameters = [parameter for parameter in getattr(step.model, side)() if parameter.requires_grad]
    parameters[-1].register_hook(lambda gradient: gradient * float("inf"))
    weights = snapshot(step.model)
    statistics = take(step, reference.images(0), reference.masks(0), 1)
    assert statistics.loss.isfinite()
    assert statistics.refused == 1
    assert same(weights, snapshot(step.model))
