"""The pixels of the target patches, each patch normalised by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.errors import Problem
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TARGETS, PatchTarget, TargetInputs

EPS = 1e-6


@TARGETS.register(
    "normalized_pixels",
    summary="The pixels of the target patches, each patch to mean 0 and variance 1; no target encoder is run.",
    source="He et al. 2022, arXiv:2111.06377 (MAE), sec. 3 (normalised pixel values as targets)",
)
class NormalizedPixelsTarget(PatchTarget):
    """(pixels - mean) / sqrt(variance + 1e-6) over all numbers of a patch, with the unbiased variance."""

    def __init__(self, params: ComponentParams, inputs: TargetInputs) -> None:
        super().__init__(params, inputs)
        self.num_features = inputs.patch_dim

    @classmethod
    def check(cls, params: ComponentParams, known: TargetInputs) -> Problem | None:
        if known.patch_dim < 2:
            return Problem("normalized_pixels needs patches of several numbers; use pixels, or larger patches")
        return None

    def of_patches(self, patches: Tensor) -> Tensor:
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + EPS).sqrt()
