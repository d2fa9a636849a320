"""Variance, invariance and covariance terms against collapse."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from jepa_lab.registry import ComponentParams
from jepa_lab.regularizers.base import REGULARIZERS, Regularizer, Representations, Term

EPS = 1e-4


class VicRegParams(ComponentParams):
    """Parameters of `vicreg`."""

    variance_weight: float = Field(1.0, ge=0, description="Weight of the variance term in the loss.")
    invariance_weight: float = Field(0.0, ge=0, description="Weight of the invariance term in the loss.")
    covariance_weight: float = Field(0.04, ge=0, description="Weight of the covariance term in the loss.")
    min_std: float = Field(
        1.0, gt=0, description="Standard deviation over images that each feature should have at least."
    )
    of: Literal["context", "predictions"] = Field(
        "context",
        description="Whose variance and covariance: the context encoder's average over the context patches of an image "
        "(what must not collapse), or the prediction's over its target patches.",
    )


@REGULARIZERS.register(
    "vicreg",
    summary="Variance, invariance and covariance terms, weighted and logged apart.",
    source="Bardes et al. 2022, arXiv:2105.04906, sec. 4.1",
)
class VicReg(Regularizer):
    """Keeps features apart over the images of a batch, and uncorrelated.

    variance: mean over features of max(0, min_std - std over images); covariance: sum of the squared off-diagonal
    covariances / D; invariance: mean squared distance between average prediction and average target.

    The weights keep the paper's ratio of variance to covariance (25 to 1); the invariance term is off by default,
    because the prediction loss is one already. Differs from the paper: no expander, and one branch, since the target
    side has no gradients. Statistics are those of the images that are computed together: of a part of the batch where
    training.accumulation_steps or several processes divide it.
    """

    Params = VicRegParams
    params: VicRegParams
    min_images = 2

    def terms(self, representations: Representations) -> dict[str, Term]:
        params = self.params
        features = {"context": representations.context, "predictions": representations.predictions}[params.of]
        return {
            "vicreg_variance": Term(params.variance_weight, variance_term(features, params.min_std)),
            "vicreg_invariance": Term(
                params.invariance_weight, F.mse_loss(representations.predictions, representations.targets)
            ),
            "vicreg_covariance": Term(params.covariance_weight, covariance_term(features)),
        }


def variance_term(features: Tensor, min_std: float) -> Tensor:
    """Mean over features [n, D] of max(0, min_std - sqrt(variance + 1e-4)), with the unbiased variance."""
    std = (_centred(features).square().sum(dim=0) / _degrees(features) + EPS).sqrt()
    return torch.relu(min_std - std).mean()


def covariance_term(features: Tensor) -> Tensor:
    """Sum of the squared off-diagonal entries of the unbiased covariance of features [n, D], divided by D."""
    centred = _centred(features)
    with torch.autocast(features.device.type, enabled=False):  # half precision would round it, or overflow
        covariance = centred.T @ centred / _degrees(features)  # [D, D]
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / features.shape[1]


def _centred(features: Tensor) -> Tensor:
    return features - features.mean(dim=0)


def _degrees(features: Tensor) -> int:
    return max(1, len(features) - 1)  # the last part of the validation images may be a single one
