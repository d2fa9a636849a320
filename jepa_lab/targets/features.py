"""The target encoder's features of the target patches: I-JEPA's own target."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jepa_lab.errors import Key, Problem
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TARGETS, FeatureGridTarget, TargetInputs, at_targets
from jepa_lab.targets.normalization import (
    NORMALIZATION_DESCRIPTION,
    PER_PATCH,
    Normalization,
    normalize_features,
)
from jepa_lab.targets.rows import TargetRows


class EncodedParams(ComponentParams):
    """What can be chosen of every target that is made of the target encoder's features."""

    normalization: Normalization = Field("layer_norm", description=NORMALIZATION_DESCRIPTION)
    num_layers: int = Field(
        1, ge=1, strict=True, description="Mean of the features of this many last blocks, each after the final norm."
    )


class FeaturesParams(EncodedParams):
    """Parameters of `features`."""

    encode: Literal["whole_image", "target_patches_only"] = Field(
        "whole_image",
        description="What the target encoder sees: the image, of which the target patches are selected afterwards, or "
        "the patches of one target block at a time, so that their features know nothing of the rest.",
    )


def mean_of_last_layers(encoder: nn.Module, images: Tensor, num_layers: int, patches: Patches | None = None) -> Tensor:
    """Features [B, K, D] averaged over the last blocks.

    Source: Baevski et al. 2022, arXiv:2202.03555 (data2vec), sec. 3.3, averages the top blocks. Differs: each after the
    encoder's final norm.
    """
    if num_layers == 1:
        return encoder(images, patches)
    features = encoder.last_layers(images, num_layers, patches)  # type: ignore[operator]  # [B, K, L * D]
    return features.unflatten(-1, (num_layers, -1)).mean(dim=-2)


class EncodedTarget(FeatureGridTarget):
    """A target that is made of the target encoder's features of the whole image."""

    Params: type[ComponentParams] = EncodedParams
    params: EncodedParams

    @classmethod
    def check(cls, params: EncodedParams, known: TargetInputs) -> Problem | None:
        if params.num_layers > known.depth:
            return Problem(
                Key("num_layers"),
                f" must be at most the number of blocks of the encoder ({known.depth}), got {params.num_layers}; "
                "lower it",
            )
        return None

    def encode(self, target_encoder: nn.Module, images: Tensor) -> Tensor:
        return mean_of_last_layers(target_encoder, images, self.params.num_layers)


@TARGETS.register(
    "features",
    summary="Features of the target patches by the target encoder.",
    source="Assran et al. 2023, arXiv:2301.08243, sec. 3; layer norm: released code",
)
class FeaturesTarget(EncodedTarget):
    """Encodes, normalises each patch, selects the target patches."""

    Params = FeaturesParams
    params: FeaturesParams

    @classmethod
    def check_levels(cls, params: FeaturesParams) -> Problem | None:
        if params.encode == "target_patches_only":
            return Problem(
                Key("encode"),
                "=target_patches_only has no features around a block to make coarser ones of; use whole_image",
            )
        return None

    def encoder_sequences(self, num_patches: float, num_blocks: int, block_patches: float) -> tuple[int, float]:
        choices = {"whole_image": (1, num_patches), "target_patches_only": (num_blocks, block_patches)}
        return choices[self.params.encode]

    @property
    def reads_targets_alone(self) -> bool:
        if type(self) is not FeaturesTarget:  # a plug-in may make its targets in another way
            return False
        params = self.params
        return params.encode == "whole_image" and params.num_layers == 1 and params.normalization in PER_PATCH

    @torch.no_grad()
    def compute_rows(self, target_encoder: nn.Module, images: Tensor, masks: Masks, rows: TargetRows) -> Tensor:
        assert self.reads_targets_alone, "other targets are made of every patch"
        features = target_encoder.of_whole_images(images, rows.read)  # type: ignore[operator]  # [u, D]
        targets = normalize_features(features, None, self.params.normalization)
        return targets.index_select(0, rows.slots).unflatten(0, masks.target.shape)

    @torch.no_grad()
    def of_features(self, features: Tensor, masks: Masks) -> Tensor:
        return at_targets(normalize_features(features, None, self.params.normalization), masks)

    @torch.no_grad()
    def compute(self, target_encoder: nn.Module, images: Tensor, masks: Masks) -> Tensor:
        if self.params.encode == "whole_image":
            return super().compute(target_encoder, images, masks)
        blocks = masks.target.shape[1]
        features = mean_of_last_layers(
            target_encoder,
            images.repeat_interleave(blocks, dim=0),
            self.params.num_layers,
            masks.target.sequences(),
        )
        features = features.unflatten(0, (-1, blocks))  # [B, M, T, D]
        return normalize_features(features, masks.target.valid, self.params.normalization)
