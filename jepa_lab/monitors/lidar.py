"""LiDAR: how many directions tell images apart that do not change with what is masked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.monitors.base import MONITORS, Monitor, Reading
from jepa_lab.monitors.observed import Observed
from jepa_lab.monitors.spectrum import effective_rank
from jepa_lab.probes.arrays import double_device
from jepa_lab.registry import ComponentParams


@MONITORS.register(
    "lidar",
    summary="Effective rank of what tells images apart beyond what masking changes (linear discriminant analysis).",
    source="Thilak et al. 2024, LiDAR (ICLR), arXiv:2312.04000, sec. 4",
)
class Lidar(Monitor):
    """LiDAR with each image as a class of its own, and with random contexts of it as the members of the class.

    The paper takes the views of the self-supervised task itself. For I-JEPA those are masked images: here a view is an
    image of which the encoder sees one context of the run's own masker, averaged over its patches. Neither crops nor
    other augmentations are applied. So runs with another masker are measured by other views.
    """

    class Params(ComponentParams):
        images: int = Field(1000, ge=2, strict=True, description="Most images, each of which is a class.")
        views: int = Field(50, ge=2, strict=True, description="Random contexts of each image.")
        delta: float = Field(
            1e-4,
            gt=0,
            description="Added to the variances within classes, so that they can be divided by.",
        )

    readings: ClassVar = {"lidar": Reading("LiDAR", "maximize")}

    def __init__(self, params: Lidar.Params) -> None:
        super().__init__(params)
        self.images, self.views, self.delta = params.images, params.views, params.delta

    def num_images(self, available: int) -> int:
        return min(self.images, available)

    def measure(self, observed: Observed) -> dict[str, float | None]:
        return {"lidar": lidar(observed.masked_views(self.views), self.delta, observed.device)}


def lidar(views: Iterable[Tensor], delta: float, device: torch.device) -> float:
    """Effective rank of W^-1/2 B W^-1/2, with B the covariance of classes' means, and W that within classes.

    B = E_x (m_x - m)(m_x - m)^T and W = E_x E_v (f_xv - m_x)(f_xv - m_x)^T + delta I, of features f_xv of view v of
    image x, their mean m_x, and the mean m of those; the effective rank is that of RankMe, of eigenvalues. Directions
    in which views of one image differ as much as images do count for little.

    Args:
        views: [b, q, D] of one batch of images after another, q views each.
        delta: see `Lidar.Params`. The paper asks for a small one and gives no value; 1e-4 is that of later work.
        device: where it is computed, if it has double precision; else on the CPU.
    Returns:
        Between 1 and min(n - 1, D); 1 where all images have the same mean.
    Source: Thilak et al. 2024, arXiv:2312.04000, sec. 4.
    """
    device = double_device(device)
    means, within, count = [], torch.zeros((), dtype=torch.float64, device=device), 0
    for batch in views:
        exact = batch.to(device, torch.float64)
        mean = exact.mean(dim=1, keepdim=True)
        rest = (exact - mean).flatten(0, 1)  # [b * q, D]
        within, count = within + rest.T @ rest, count + len(rest)
        means.append(mean.squeeze(1))
    centred = torch.cat(means)  # [n, D]
    centred = centred - centred.mean(dim=0)
    variances, directions = torch.linalg.eigh(
        within / count
    )  # of W without delta, and so not negative but for rounding
    whitened = centred @ directions / (variances.clamp_min(0) + delta).sqrt()  # [n, D]
    eigenvalues = torch.linalg.eigvalsh(whitened.T @ whitened / len(centred))
    return effective_rank(eigenvalues.clamp_min(0))
