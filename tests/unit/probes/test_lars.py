"""LARS against a plain computation, classifier by classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_lab.probes.lars import StackedLars


def by_hand(
    weight: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float, scaled: bool
) -> np.ndarray:
    """One weight matrix after some steps."""
    velocity = np.zeros_like(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        direction = gradient + decay * weight
        lengths = np.linalg.norm(weight), np.linalg.norm(direction)
        if scaled and min(lengths) > 0:
            direction = 0.001 * lengths[0] / lengths[1] * direction
        velocity = 0.9 * velocity + direction
        weight = weight - rate * velocity
    return weight


@pytest.mark.parametrize("scaled", [True, False], ids=["lars", "sgd"])
def test_each_classifier_takes_the_steps_that_it_would_take_alone(scaled: bool) -> None:
    generator = np.random.default_rng(0)
    weights, biases = generator.standard_normal((3, 4, 2)), generator.standard_normal((3, 1, 2))
    weights[2] = 0.0  # the factor is 1 where there is no length
    gradients = [(generator.standard_normal((3, 4, 2)), generator.standard_normal((3, 1, 2))) for _ in range(5)]
    rates, decays = [[0.1 * (step + 1), 2.0, 0.5] for step in range(5)], [0.0, 0.3, 0.1]
    own = torch.from_numpy(weights.copy()), torch.from_numpy(biases.copy())
    lars = StackedLars(*own, torch.tensor(decays, dtype=torch.float64), scaled=scaled)
    for pair, rate in zip(gradients, rates, strict=True):
        lars.step([torch.from_numpy(each) for each in pair], torch.tensor(rate, dtype=torch.float64))
    for number in range(3):
        steps = [rate[number] for rate in rates]
        expected = by_hand(weights[number], [each[0][number] for each in gradients], steps, decays[number], scaled)
        assert own[0][number].numpy() == pytest.approx(expected, rel=1e-9)
        plain = by_hand(biases[number], [each[1][number] for each in gradients], steps, 0.0, False)
        assert own[1][number].numpy() == pytest.approx(plain, rel=1e-9), "biases neither decay nor are scaled"


def test_without_the_factor_it_is_torch_s_sgd_with_momentum() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, biases = torch.randn(1, 4, 2, generator=generator), torch.zeros(1, 1, 2)
    theirs = weights.clone().requires_grad_()
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01)
    own = StackedLars(weights, biases, torch.tensor([0.01]), scaled=False)
    for _ in range(4):
        gradient = torch.randn(1, 4, 2, generator=generator)
        theirs.grad = gradient
        sgd.step()
        own.step([gradient, torch.zeros(1, 1, 2)], torch.tensor([0.1]))
    assert torch.allclose(weights, theirs)
