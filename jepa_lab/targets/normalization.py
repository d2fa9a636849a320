"""How target features are normalised; not a component itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5

Normalization = Literal["layer_norm", "batch_norm", "none"]


def normalize_features(features: Tensor, valid: Tensor | None, normalization: Normalization) -> Tensor:
    """Normalise features [..., D] without learned scale and shift.

    Args:
        valid: [...] bool, False where a feature has no meaning and must not count; None where all count.
    """
    return _NORMALIZATIONS[normalization](features, valid)


def _layer_norm(features: Tensor, valid: Tensor | None) -> Tensor:
    return F.layer_norm(features, features.shape[-1:], eps=EPS)


def _batch_norm(features: Tensor, valid: Tensor | None) -> Tensor:
    """Each feature to mean 0 and variance 1 over all patches of all images that are computed together."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    flat = features.flatten(0, -2).to(dtype)  # [n, D]
    if valid is None:
        mean, variance = flat.mean(dim=0), flat.var(dim=0, correction=0)
    else:
        weight = valid.flatten().to(dtype)[:, None]  # [n, 1]
        count = weight.sum().clamp(min=1)
        mean = (flat * weight).sum(dim=0) / count
        variance = ((flat - mean).square() * weight).sum(dim=0) / count
    return ((features.to(dtype) - mean) / (variance + EPS).sqrt()).to(features.dtype)


def _as_they_are(features: Tensor, valid: Tensor | None) -> Tensor:
    return features


_NORMALIZATIONS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "none": _as_they_are,
}

PER_PATCH: frozenset[Normalization] = frozenset({"layer_norm", "none"})
"""Normalisations of a patch that do not depend on other patches."""

NORMALIZATION_DESCRIPTION = (
    "Of the features, without learned scale and shift (eps 1e-5): over each patch's features (layer_norm, which fixes "
    "the scale of the loss), of each feature over the patches of all images that are computed together (batch_norm: "
    "of a part of the batch where training.accumulation_steps or several processes divide it), or none."
)
