"""RankMe: in how many directions the features of images differ."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jepa_lab.monitors.precision import double

_EPSILON = 1e-7
"""The paper's value for single precision."""


def rankme(features: Tensor) -> float:
    """Effective rank of a feature matrix: the exponential of the entropy of its normalised singular values.

    p_k = sigma_k / sum_j sigma_j + 1e-7, RankMe = exp(-sum_k p_k log p_k). As in the paper the features are not
    centred: a mean that all images share counts as one direction, and where it dominates RankMe is near 1.

    Args:
        features: [n, D], one row an image.
    Returns:
        Between 1 and min(n, D).
    Source: Garrido et al. 2023, arXiv:2210.02885, eq. 1.
    """
    singular_values = torch.linalg.svdvals(double(features))  # [min(n, D)]
    total = singular_values.sum().clamp_min(torch.finfo(torch.float64).tiny)  # zeros have no direction: rank 1
    shares = singular_values / total + _EPSILON
    return math.exp(-(shares * shares.log()).sum().item())


def centred_rankme(features: Tensor) -> float:
    """RankMe of the features with their mean over images taken off: how many directions tell images apart.

    Without the mean nothing hides the others: features that vary along one direction around a common point have 1,
    whatever the point. Features that are exactly the same for every image have 1, too; but where images differ by
    rounding alone, that noise has many directions: read it beside the image variance ratio.

    Args:
        features: [n, D], one row an image.
    Returns:
        Between 1 and min(n - 1, D).
    Source: Garrido et al. 2023, arXiv:2210.02885, eq. 1. Differs: centred, which the paper does not do.
    """
    exact = double(features)
    return rankme(exact - exact.mean(dim=0))
