"""The terms against sums written out, and what they do to a training step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from jepa_lab.composition.checks import check_team
from jepa_lab.config.checks import check_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.ijepa import IJepa
from jepa_lab.regularizers.base import Representations
from jepa_lab.regularizers.vicreg import VicReg, VicRegParams, covariance_term, variance_term
from jepa_lab.training.team import Team
from tests.golden.reference import Reference, build_reference_model, build_reference_step, load_reference, take
from tests.integration.pipelines import load_tiny


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_reference()


def regularized(reference: Reference, **params: object) -> IJepa:
    model = build_reference_model(reference)
    model.regularizer = VicReg(VicRegParams.model_validate(params))
    return model


def test_variance_is_the_hinge_of_each_feature_s_standard_deviation() -> None:
    features = torch.tensor([[0.0, 0.0], [2.0, 0.1], [4.0, 0.2]], dtype=torch.float64)  # std 2 and 0.1
    assert variance_term(features, 1.0).item() == pytest.approx((0 + 1 - (0.01 + 1e-4) ** 0.5) / 2)
    assert variance_term(features, 3.0).item() == pytest.approx((3 - (4 + 1e-4) ** 0.5 + 3 - (0.01 + 1e-4) ** 0.5) / 2)


def test_covariance_is_the_sum_of_squares_off_the_diagonal_over_the_width() -> None:
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = torch.cov(features.T)
    expected = sum(covariance[i, j] ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert covariance_term(features).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_covariances(dtype: torch.dtype) -> None:
    features = 20 * torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=dtype):
        under_autocast = covariance_term(features)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, covariance_term(features))


def test_representations_are_averages_over_valid_patches_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(2, 1, 3, 4, generator=generator)
    predictions = torch.randn(2, 1, 2, 2, 4, generator=generator)
    valid = torch.tensor([[[True, True], [True, False]]]).expand(2, 2, 2)
    masks = Masks(
        Patches(torch.zeros(2, 1, 3, dtype=torch.int64), torch.tensor([[[True, True, False]], [[True, True, True]]])),
        Patches(torch.zeros(2, 2, 2, dtype=torch.int64), valid),
    )
    found = Representations(context, predictions, -predictions, masks)
    assert torch.allclose(found.context[0], context[0, 0, :2].mean(dim=0))
    assert torch.allclose(found.context[1], context[1, 0].mean(dim=0))
    three = torch.stack([predictions[1, 0, 0, 0], predictions[1, 0, 0, 1], predictions[1, 0, 1, 0]])
    assert torch.allclose(found.predictions[1], three.mean(dim=0))
    assert torch.allclose(found.targets, -found.predictions)


@pytest.mark.parametrize("of", ["context", "predictions"])
def test_the_loss_is_the_prediction_loss_plus_the_weighted_terms(reference: Reference, of: str) -> None:
    weights = {"variance_weight": 2.0, "invariance_weight": 3.0, "covariance_weight": 5.0}
    out = regularized(reference, of=of, min_std=4.0, **weights)(reference.images(0), reference.masks(0))
    plain = build_reference_model(reference)(reference.images(0), reference.masks(0))
    terms = {name: term.item() for name, term in out.terms.items()}
    assert set(terms) == {"prediction_loss", "vicreg_variance", "vicreg_invariance", "vicreg_covariance"}
    assert terms["prediction_loss"] == plain.loss.item()
    assert all(value > 0 for value in terms.values())
    expected = terms["prediction_loss"] + 2 * terms["vicreg_variance"] + 3 * terms["vicreg_invariance"]
    assert out.loss.item() == pytest.approx(expected + 5 * terms["vicreg_covariance"])


def test_each_choice_of_representation_gives_other_terms(reference: Reference) -> None:
    first, second = (
        regularized(reference, of=of)(reference.images(0), reference.masks(0)).terms
        for of in ("context", "predictions")
    )
    assert first["vicreg_variance"] != second["vicreg_variance"]
    assert first["vicreg_invariance"] == second["vicreg_invariance"]


def test_the_least_standard_deviation_is_that_which_is_asked_for(reference: Reference) -> None:
    one, two, far = (
        regularized(reference, min_std=min_std)(reference.images(0), reference.masks(0)).terms["vicreg_variance"]
        for min_std in (100.0, 101.0, 1e-6)
    )
    assert two.item() - one.item() == pytest.approx(1.0)
    assert far.item() == 0


def test_without_weights_training_is_that_of_the_prediction_loss_alone(reference: Reference) -> None:
    model = regularized(reference, variance_weight=0, invariance_weight=0, covariance_weight=0)
    steps = [build_reference_step(each) for each in (model, build_reference_model(reference))]
    for number in range(2):
        for step in steps:
            take(step, reference.images(number), reference.masks(number), number + 1)
    first, second = (dict(step.model.named_parameters()) for step in steps)
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_terms_of_the_parts_of_a_batch_add_up_by_their_share(reference: Reference) -> None:
    model = regularized(reference)
    images, masks = reference.images(0), reference.masks(0)
    num_valid = model.count_targets(masks)
    half = len(images) // 2
    parts = [slice(0, half), slice(half, None)]
    shared = [model(images[part], masks[part], num_valid) for part in parts]
    alone = [model(images[part], masks[part]) for part in parts]
    whole = sum(part.loss for part in shared)
    assert whole.item() == pytest.approx(sum(part.loss.item() for part in alone) / 2)


def test_the_variance_term_keeps_features_apart_that_would_collapse() -> None:
    def features(weight: float) -> Tensor:
        start = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)) * 0.05
        points = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([points], lr=0.5)
        for _ in range(200):
            optimizer.zero_grad()
            (points.square().mean() + weight * variance_term(points, 1.0)).backward()
            optimizer.step()
        return points.detach().std(dim=0)

    assert features(0.0).max() < 0.02
    assert features(25.0).min() > 0.5


def test_one_image_at_once_is_refused_before_anything_is_built(tmp_path) -> None:
    check_pipeline(load_tiny(tmp_path, "regularizer=vicreg"))
    with pytest.raises(ConfigError, match="regularizer: its statistics need at least 2 images at once"):
        check_pipeline(load_tiny(tmp_path, "regularizer=vicreg", "training.accumulation_steps=24"))


def test_one_image_in_each_of_several_processes_is_refused(tmp_path) -> None:
    team = cast(Team, SimpleNamespace(size=12))
    check_team(load_tiny(tmp_path, "regularizer=vicreg"), team)
    with pytest.raises(ConfigError, match=r"a batch of 24 in 2 part\(s\) by each of 12 processes"):
        check_team(load_tiny(tmp_path, "regularizer=vicreg", "training.accumulation_steps=2"), team)
