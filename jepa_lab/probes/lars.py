"""LARS for classifiers that stand side by side in one tensor: a step as long as the weights allow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TRUST = 0.001
_MOMENTUM = 0.9


class StackedLars:
    """Momentum on gradients that are scaled to the length of the weights, for each classifier by itself.

    ```
    d = gradient + weight_decay * w;  d = d * 0.001 * |w| / |d|;  v = 0.9 v + d;  w = w - rate * v
    ```
    The factor is 1 where |w| or |d| is zero. Biases neither decay nor are scaled.

    Args:
        weights: [G, ...] with gradients to come. biases: [G, ...].
        weight_decays: of each classifier, [G].
        scaled: False leaves out the factor: that is SGD with momentum.
    Source: You et al. 2017, arXiv:1708.03888, alg. 1, in the form of He et al. 2021, arXiv:2111.06377 (the decay is
    part of the scaled gradient, and the rate multiplies the velocity).
    """

    def __init__(self, weights: Tensor, biases: Tensor, weight_decays: Tensor, *, scaled: bool = True) -> None:
        self.weights, self.biases, self.weight_decays, self.scaled = weights, biases, weight_decays, scaled
        self.velocities = (torch.zeros_like(weights), torch.zeros_like(biases))

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Take one.

        Args:
            gradients: of weights and biases. rates: of each classifier, [G].
        """
        of_weights, of_biases = gradients
        directions = of_weights + _along(self.weight_decays, self.weights) * self.weights
        if self.scaled:
            lengths, steepness = (each.flatten(1).norm(dim=1) for each in (self.weights, directions))  # [G]
            factors = torch.where((lengths > 0) & (steepness > 0), _TRUST * lengths / steepness, 1.0)
            directions = _along(factors, directions) * directions
        parameters = (self.weights, self.biases)
        for parameter, direction, velocity in zip(parameters, (directions, of_biases), self.velocities, strict=True):
            velocity.mul_(_MOMENTUM).add_(direction)
            parameter.sub_(_along(rates, velocity) * velocity)


def _along(values: Tensor, like: Tensor) -> Tensor:
    """[G] as a factor of [G, ...]."""
    return values.view(-1, *([1] * (like.ndim - 1)))
