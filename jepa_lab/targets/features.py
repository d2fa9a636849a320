"""The target encoder's features of the target patches: I-JEPA's own target."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from jepa_lab.maskers.base import Masks
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TARGETS, Target


class FeaturesParams(ComponentParams):
    """Parameters of `features`."""

    normalization: Literal["layer_norm", "none"] = Field(
        "layer_norm",
        description="Layer-norm (no affine, eps 1e-5) of each patch's features, which fixes the scale of the loss.",
    )


@TARGETS.register(
    "features",
    summary="Features of the target patches by the target encoder, which sees the whole image.",
    source="Assran et al. 2023, arXiv:2301.08243, sec. 3; layer norm: released code",
)
class FeaturesTarget(Target):
    """Encodes the whole image, normalises each patch, then selects the target patches."""

    Params = FeaturesParams
    params: FeaturesParams

    @torch.no_grad()
    def compute(self, target_encoder: nn.Module, images: Tensor, masks: Masks) -> Tensor:
        features = target_encoder(images)  # [B, N, D]
        if self.params.normalization == "layer_norm":
            features = F.layer_norm(features, features.shape[-1:])
        batch, blocks, patches = masks.target.shape
        index = masks.target.reshape(batch, blocks * patches, 1).expand(-1, -1, features.shape[-1])
        return features.gather(1, index).reshape(batch, blocks, patches, -1)
