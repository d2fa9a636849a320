"""The model, its gradients and six training steps equal the released implementation's numbers."""

from __future__ import annotations

import pytest
from torch import Tensor

from jepa_lab.training.ema.constant import ConstantEma, ConstantParams
from jepa_lab.training.step import TrainingStep
from tests.golden.reference import Reference, build_reference_model, build_reference_step, load_reference, take

TOLERANCE = 1e-10


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_reference()


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert set(ours) == set(theirs)
    return max((ours[name] - theirs[name]).abs().max().item() for name in theirs)


def run_six_steps(step: TrainingStep, reference: Reference) -> list[float]:
    return [
        take(step, reference.images(number), reference.masks(number), number + 1).loss.item() for number in range(6)
    ]


def final_difference(step: TrainingStep, reference: Reference, part: str) -> float:
    module = getattr(step.model, {"encoder": "context_encoder"}.get(part, part))
    return largest_difference(dict(module.named_parameters()), reference.weights(f"final.{part}"))


def in_reference_order(predictions: Tensor) -> Tensor:
    """[B, E, M, T, D] -> [M * E * B, T, D]: target block, then context view, then image."""
    return predictions.permute(2, 1, 0, 3, 4).flatten(0, 2)


def test_forward_pass_equals_the_reference(reference: Reference) -> None:
    model = build_reference_model(reference)
    images, masks = reference.images(0), reference.masks(0)
    theirs = reference.tensors
    out = model(images, masks)
    context = model.context_encoder(images, masks.context.sequences())
    assert (model.target_encoder(images) - theirs["step0.target_encoder_output"]).abs().max() < TOLERANCE
    assert (context - theirs["step0.context_encoder_output"]).abs().max() < TOLERANCE
    targets = out.targets.transpose(0, 1).flatten(0, 1)
    assert (targets - theirs["step0.targets"]).abs().max() < TOLERANCE
    assert (in_reference_order(out.predictions) - theirs["step0.predictions"]).abs().max() < TOLERANCE
    assert abs(out.loss.item() - reference.config["losses"][0]) < TOLERANCE


def test_every_gradient_equals_the_reference(reference: Reference) -> None:
    model = build_reference_model(reference)
    model(reference.images(0), reference.masks(0)).loss.backward()
    for part, module in (("encoder", model.context_encoder), ("predictor", model.predictor)):
        ours = {name: parameter.grad for name, parameter in module.named_parameters()}
        assert largest_difference(ours, reference.weights(f"step0.grad.{part}")) < TOLERANCE
    assert all(parameter.grad is None for parameter in model.target_encoder.parameters())


def test_six_training_steps_equal_the_reference(reference: Reference) -> None:
    step = build_reference_step(build_reference_model(reference))
    losses = run_six_steps(step, reference)
    assert losses == pytest.approx(reference.config["losses"], abs=TOLERANCE)
    for part in ("encoder", "predictor", "target_encoder"):
        assert final_difference(step, reference, part) < TOLERANCE


def test_parity_fails_without_ema(reference: Reference) -> None:
    frozen = ConstantEma(ConstantParams(value=1.0))
    step = build_reference_step(build_reference_model(reference), ema=frozen)
    run_six_steps(step, reference)
    assert final_difference(step, reference, "target_encoder") > 1e-4


@pytest.mark.parametrize("without", [{"weight_decay": 0.0, "final_weight_decay": 0.0}, {"decay_mask_token": False}])
def test_parity_fails_without_weight_decay(reference: Reference, without: dict[str, object]) -> None:
    step = build_reference_step(build_reference_model(reference), **without)
    run_six_steps(step, reference)
    assert final_difference(step, reference, "predictor") > 1e-6


def test_parity_fails_with_targets_in_another_order(reference: Reference) -> None:
    model = build_reference_model(reference)
    masks = reference.masks(0)
    compute = model.target.compute_rows
    model.target.compute_rows = lambda encoder, images, masks, rows: compute(encoder, images, masks, rows).flip(1)
    loss = model(reference.images(0), masks).loss.item()
    assert abs(loss - reference.config["losses"][0]) > 1e-5
