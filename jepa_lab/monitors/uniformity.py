"""Uniformity: how evenly features are spread over the unit sphere."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from jepa_lab.monitors.base import MONITORS, Monitor, Reading
from jepa_lab.monitors.observed import Observed
from jepa_lab.probes.arrays import double_device
from jepa_lab.registry import ComponentParams

_AT_ONCE = 2048


@MONITORS.register(
    "uniformity",
    summary="Logarithm of the mean Gaussian potential of pairs of images, on features of unit length; lower is better.",
    source="Wang and Isola 2020, arXiv:2005.10242, eq. 4",
)
class Uniformity(Monitor):
    """How evenly features are spread over the unit sphere: 0 where all images have the same, lower where they spread.

    An average over pairs, which does not depend on the number of images.
    """

    class Params(ComponentParams):
        t: float = Field(2.0, gt=0, description="Of the potential exp(-t d^2) of two features at distance d.")

    readings: ClassVar = {"uniformity": Reading("uniformity", "minimize")}

    def __init__(self, params: Uniformity.Params) -> None:
        super().__init__(params)
        self.t = params.t

    def measure(self, observed: Observed) -> dict[str, float | None]:
        return {"uniformity": uniformity(observed.features, self.t, observed.device)}


def uniformity(features: Tensor, t: float, device: torch.device) -> float | None:
    """log of the mean over pairs of exp(-t |x - y|^2), for features x, y of unit length.

    Computed in double precision, in blocks of pairs.

    Args:
        features: [n, D], one row an image.
        device: where it is computed, if it has double precision; else on the CPU.
    Returns:
        At most 0; None for fewer than two images.
    Source: Wang and Isola 2020, arXiv:2005.10242, eq. 4. As there, features are not centred.
    """
    num_images = len(features)
    if num_images < 2:
        return None
    unit = F.normalize(features.to(double_device(device), torch.float64), dim=1)
    squares = unit.square().sum(dim=1)  # [n]: 1, or 0 for a feature without direction
    total = torch.zeros((), dtype=torch.float64, device=unit.device)
    for start in range(0, num_images, _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        distances = squares[rows, None] + squares[None, start:] - 2 * unit[rows] @ unit[start:].T  # squared
        total += distances.clamp_min(0).mul_(-t).exp_().triu_(diagonal=1).sum()  # each pair once
    return math.log(total.item() / (num_images * (num_images - 1) / 2))
