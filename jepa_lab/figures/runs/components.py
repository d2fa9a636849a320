"""Principal components of features."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Components(NamedTuple):
    """Features along their first principal components.

    Attributes:
        scores: [n, k] float64; along directions that the features do not have they are zero.
        shares: [k] of the variance.
    """

    scores: Tensor
    shares: Tensor


def principal_components(features: Tensor, count: int) -> Components:
    """The scores of features [n, D] on their first `count` principal components.

    A component has no sign of its own: the largest score is made positive, so that a picture does not depend on the
    library that was used.
    """
    centred = features.double().cpu()
    centred = centred - centred.mean(dim=0)
    if len(centred) <= centred.shape[1]:  # the smaller of two matrices that have the same eigenvalues
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        scores = vectors * values.clamp_min(0).sqrt()
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        scores = centred @ vectors
    scores, values = scores.flip(1)[:, :count], values.flip(0)[:count].clamp_min(0)
    scores = scores * scores.gather(0, scores.abs().argmax(dim=0, keepdim=True)).sign()
    shares = values / centred.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    missing = count - scores.shape[1]
    return Components(F.pad(scores, (0, missing)), F.pad(shares, (0, missing)))
