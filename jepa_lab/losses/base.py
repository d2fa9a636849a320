"""What a loss is: one number for each predicted patch; averaging over valid patches is the caller's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from jepa_lab.contracts import is_first, require, require_tensor
from jepa_lab.errors import Problem
from jepa_lab.registry import Component, ComponentParams, Registry


class Loss(Component[int], ABC):
    """Compares predicted with target representations.

    Args:
        params: the loss's own `Params`; `check` gets the number of features of a target.

    Attributes:
        min_features: the fewest numbers of a target that it can tell apart.
    """

    min_features: int = 1

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @classmethod
    def check(cls, params: Any, known: int) -> Problem | str | None:
        """Whether targets of `known` features are enough."""
        if known >= cls.min_features:
            return None
        return Problem(
            f"{params.name!r} compares targets of at least {cls.min_features} numbers, and this target has {known}; "
            "use another loss, or a target of more"
        )

    @abstractmethod
    def per_patch(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Loss of each patch.

        Args:
            predictions: [..., D]. targets: [..., D], same shape, without gradient.
        Returns:
            [...], one non-negative number a patch.
        """


def loss_per_patch(loss: Loss, predictions: Tensor, targets: Tensor) -> Tensor:
    """`loss.per_patch`, of which the first result is looked at.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    per_patch = loss.per_patch(predictions, targets)
    if is_first(loss, "per_patch"):
        shape = tuple(predictions.shape[:-1])
        require_tensor(loss, "per_patch", per_patch, shape, "[B, E, M, T]", device=predictions.device)
    if predictions.requires_grad and is_first(loss, "per_patch in training"):  # the first one of all is evaluated
        expected = "one through which gradients reach the predictions"
        require(loss, "per_patch", per_patch.requires_grad, "a tensor without gradients", expected)
    return per_patch


LOSSES: Registry[Loss] = Registry("loss", Loss)


def mean_over_valid(per_patch: Tensor, valid: Tensor | None, count: Tensor | int) -> Tensor:
    """Sum over valid patches divided by their number in the batch.

    Args:
        per_patch: [B, E, M, T] losses.
        valid: [B, M, T] bool, or None where every patch is valid.
        count: the divisor: valid patches of the batch that these are, or are a part of, once for each view.
    Returns:
        Scalar.
    """
    if valid is not None:
        per_patch = per_patch.masked_fill(~valid.unsqueeze(1), 0.0)
    return per_patch.sum() / count
