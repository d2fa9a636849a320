"""Batch norm without affine parameters, for heads of frozen features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_MOMENTUM = 0.1
_EPS = 1e-6
"""That of He et al. 2021, arXiv:2111.06377, app. A: features of an encoder can differ by very little."""


class BatchNorm:
    """Normalises by the batch while training, and later by what it remembers.

    The memory begins as the mean over all steps, not as 0 and 1, so that it holds after few steps, too.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.mean, self.variance = torch.zeros(width, device=device), torch.ones(width, device=device)
        self.steps = 0

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """[b, width] of the same shape.

        Args:
            training: use the statistics of these rows, and remember them; at least 2 rows.
        """
        momentum = max(_MOMENTUM, 1 / (self.steps + 1))
        self.steps += training
        return F.batch_norm(x, self.mean, self.variance, training=training, momentum=momentum, eps=_EPS)
