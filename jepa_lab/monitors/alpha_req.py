"""alpha-ReQ: how fast the spectrum of the features' covariance decays."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.errors import Key
from jepa_lab.monitors.base import MONITORS, Monitor, Reading
from jepa_lab.monitors.observed import Observed
from jepa_lab.registry import ComponentParams, broken_rule

_FEWEST = 10
"""Eigenvalues to fit an exponent to."""
_ROUNDING = 16 * torch.finfo(torch.float32).eps
"""Of a feature, relative to its size, by all the sums that it is made of."""


@MONITORS.register(
    "alpha_req",
    summary="Exponent of the power law in the eigenvalues of the features' covariance; said to be best near 1.",
    source="Agrawal et al. 2022, alpha-ReQ (NeurIPS); fit of Stringer et al. 2019, as in the authors' package reptrix",
)
class AlphaReQ(Monitor):
    """alpha-ReQ. It depends on the range of the fit and on the number of images: compare values of equal ones."""

    class Params(ComponentParams):
        first: int = Field(6, ge=1, strict=True, description="First eigenvalue of the fit; 1 is the largest.")
        last: int = Field(100, ge=2, strict=True, description="Last eigenvalue of the fit, or the last that there is.")

        @model_validator(mode="after")
        def _check(self) -> AlphaReQ.Params:
            if self.last < self.first + _FEWEST - 1:
                raise broken_rule(
                    Key("last"),
                    f" must be at least {_FEWEST - 1} above ",
                    Key("first"),
                    f" ({self.first}), got {self.last}: a line is fitted to at least {_FEWEST} eigenvalues; raise it",
                )
            return self

    readings: ClassVar = {"alpha_req": Reading("alpha-ReQ", None)}

    def __init__(self, params: AlphaReQ.Params) -> None:
        super().__init__(params)
        self.first, self.last = params.first, params.last

    def measure(self, observed: Observed) -> dict[str, float | None]:
        mean_square = observed.singular_values.square().sum().item() / observed.features.shape[1]
        eigenvalues = observed.centred_singular_values.square()
        return {"alpha_req": decay_exponent(eigenvalues, self.first, self.last, _ROUNDING**2 * mean_square)}


def decay_exponent(eigenvalues: Tensor, first: int, last: int, smallest: float = 0.0) -> float | None:
    """alpha of lambda_j ~ j^-alpha, by weighted least squares of log lambda_j on log j.

    The weight of eigenvalue j is 1/j, so that the many small ones do not outweigh the few large ones.

    Args:
        eigenvalues: of a covariance, up to any factor, [k], largest first.
        first, last: which are fitted, from 1.
        smallest: those that are not larger are rounding, and left out. A final layer norm, for one, leaves a direction
            in which features cannot differ.
    Returns:
        None where fewer than ten are left.
    Source: Agrawal et al. 2022, "alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by measuring
        eigenspectrum decay", NeurIPS. The paper gives no recipe of the fit: this one is Stringer et al. 2019 (Nature,
        s41586-019-1346-5), with the range of the authors' package reptrix.
    """
    exact = eigenvalues.double()
    count = int((exact > smallest).sum())
    fitted = exact[first - 1 : min(last, count)]
    if len(fitted) < _FEWEST:
        return None
    numbers = torch.arange(first, first + len(fitted), dtype=torch.float64)
    weights = 1 / numbers
    weights /= weights.sum()
    x, y = numbers.log(), fitted.log().cpu()
    x, y = x - (weights * x).sum(), y - (weights * y).sum()
    return -((weights * x * y).sum() / (weights * x.square()).sum()).item()
