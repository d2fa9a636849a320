"""Linear classifiers side by side: one tensor holds those of all settings that are tried."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LinearHeads:
    """G linear classifiers; none disturbs another, even where one diverges: each sees its own slice of the gradients.

    Attributes:
        weights: [G, D', C]. biases: [G, 1, C].
    """

    weights: Tensor
    biases: Tensor

    @classmethod
    def zeros(cls, num_heads: int, width: int, num_classes: int, device: torch.device) -> LinearHeads:
        """They begin at zero: the problem is convex, so where they begin does not matter."""
        weights, biases = (torch.zeros(num_heads, rows, num_classes, device=device) for rows in (width, 1))
        return cls(weights.requires_grad_(), biases.requires_grad_())

    @classmethod
    def normal(
        cls,
        num_heads: int,
        width: int,
        num_classes: int,
        std: float,
        generator: torch.Generator,
        device: torch.device,
    ) -> LinearHeads:
        """They begin alike, at normal weights and zero biases, for an optimizer that looks at the size of weights.

        Args:
            generator: of the CPU.
        """
        begin = std * torch.randn(width, num_classes, generator=generator)
        weights = begin.to(device).repeat(num_heads, 1, 1)
        return cls(weights.requires_grad_(), torch.zeros(num_heads, 1, num_classes, device=device).requires_grad_())

    def logits(self, features: Tensor, scales: Tensor | None = None) -> Tensor:
        """[G, b, C] of features [b, D'].

        Args:
            scales: factors of the features for each head, [G, D']; None for 1.
        """
        weights = self.weights if scales is None else self.weights * scales[:, :, None]
        return torch.matmul(features, weights) + self.biases


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum over heads of each one's mean loss.

    Args:
        logits: [G, b, C]. labels: [b] int64.
    """
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="sum") / len(labels)
