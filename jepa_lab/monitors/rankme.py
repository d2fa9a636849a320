"""RankMe: in how many directions features extend."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from jepa_lab.monitors.base import MONITORS, Monitor, Reading
from jepa_lab.monitors.observed import Observed
from jepa_lab.monitors.spectrum import effective_rank, singular_values

_CPU = torch.device("cpu")


@MONITORS.register(
    "rankme",
    summary="RankMe, the effective rank of the features, and the same with their mean taken off.",
    source="Garrido et al. 2023, arXiv:2210.02885, eq. 1; centred: of our own",
)
class RankMe(Monitor):
    """RankMe and its centred form. It grows with the number of images: compare values of equally many.

    The paper measures 25,600 images.
    """

    readings: ClassVar = {
        "rankme": Reading("RankMe", "maximize"),
        "rankme_centred": Reading("centred RankMe", "maximize"),
    }

    def measure(self, observed: Observed) -> dict[str, float | None]:
        return {
            "rankme": effective_rank(observed.singular_values),
            "rankme_centred": effective_rank(observed.centred_singular_values),
        }


def rankme(features: Tensor, device: torch.device = _CPU) -> float:
    """Effective rank of a feature matrix: the exponential of the entropy of its normalised singular values.

    p_k = sigma_k / sum_j sigma_j + 1e-7, RankMe = exp(-sum_k p_k log p_k). As in the paper the features are not
    centred: a mean that all images share counts as one direction, and where it dominates RankMe is near 1.

    Args:
        features: [n, D], one row an image.
        device: where it is computed.
    Returns:
        Between 1 and min(n, D).
    Source: Garrido et al. 2023, arXiv:2210.02885, eq. 1.
    """
    return effective_rank(singular_values(features, device, centred=False))


def centred_rankme(features: Tensor, device: torch.device = _CPU) -> float:
    """RankMe of the features with their mean over images taken off: how many directions tell images apart.

    Without the mean nothing hides the others: features that vary along one direction around a common point have 1,
    whatever the point. Features that are exactly the same for every image have 1, too; but where images differ by
    rounding alone, that noise has many directions: read it beside the image variance ratio.

    Args:
        features: [n, D], one row an image.
        device: where it is computed.
    Returns:
        Between 1 and min(n - 1, D).
    Source: Garrido et al. 2023, arXiv:2210.02885, eq. 1. Differs: centred, which the paper does not do.
    """
    return effective_rank(singular_values(features, device, centred=True))
