"""What a prediction target is: the representations that the predictor is trained to produce."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lab.contracts import require, require_tensor
from jepa_lab.errors import Problem
from jepa_lab.grid import patchify
from jepa_lab.maskers.base import Masks
from jepa_lab.registry import Component, ComponentParams, Registry
from jepa_lab.targets.rows import TargetRows


@dataclass(frozen=True)
class TargetInputs:
    """What a target is computed from.

    Attributes:
        embed_dim, depth: D and the number of blocks of the target encoder.
        patch_size, num_channels: of the images.
    """

    embed_dim: int
    depth: int
    patch_size: int
    num_channels: int

    @property
    def patch_dim(self) -> int:
        """Numbers that a patch is made of: C * patch_size**2."""
        return self.num_channels * self.patch_size**2


ImageBatches = Callable[[int], Iterator[Tensor]]
"""Gives that many training images (or all, where there are fewer), drawn at random, in batches [b, C, H, W]:
float32, channel-normalised, not augmented."""


class Target(Component[TargetInputs], nn.Module, ABC):
    """Computes the targets of a batch, without gradients.

    What a target learns of the training images before the first step (`fit`) lives in its buffers, so that it is
    saved with the run.

    Args:
        params: the target's own `Params`.
        inputs: what it is computed from; `check` gets it too.

    Attributes:
        num_features: D of the targets, which the predictor puts out for each patch.
    """

    num_features: int

    def __init__(self, params: ComponentParams, inputs: TargetInputs) -> None:
        super().__init__()
        self.params = params
        self.inputs = inputs
        self.num_features = inputs.embed_dim

    @classmethod
    def check_levels(cls, params: Any) -> Problem | str | None:
        """Why it cannot be predicted at coarser levels, and the remedy; None for a `FeatureGridTarget` that can.

        Parameters are named as in `check`.
        """
        return "it has no features at coarser levels; use target=features, or hierarchy.num_levels=1"

    def encoder_sequences(self, num_patches: float, num_blocks: int, block_patches: float) -> tuple[int, float]:
        """What the target encoder computes for one image: how many sequences, of how many patches.

        Args:
            num_patches: of the image. num_blocks: M. block_patches: T.
        """
        return 1, num_patches

    def fit(self, images: ImageBatches) -> None:
        """Learn what is needed of the training images, once, before the first step; most targets need nothing."""
        return None

    @property
    def reads_targets_alone(self) -> bool:
        """Whether of the encoded image only target patches are read; `compute_rows` then saves the others' share."""
        return False

    def compute_rows(self, target_encoder: nn.Module, images: Tensor, masks: Masks, rows: TargetRows) -> Tensor:
        """The same as `compute`; a target that reads target patches alone may leave out what the rows do not need."""
        return self.compute(target_encoder, images, masks)

    @abstractmethod
    def compute(self, target_encoder: nn.Module, images: Tensor, masks: Masks) -> Tensor:
        """Targets at the masks' target positions.

        Args:
            target_encoder: a `VisionTransformer`; a target that does not need its features does not run it.
            images: [B, C, H, W] float32, channel-normalised.
        Returns:
            [B, M, T, num_features]; padded positions hold numbers without meaning.
        """


class PatchTarget(Target):
    """A target that is made of the images' patches; it does not run the target encoder."""

    def encoder_sequences(self, num_patches: float, num_blocks: int, block_patches: float) -> tuple[int, float]:
        return 0, 0.0

    @torch.no_grad()
    def compute(self, target_encoder: nn.Module, images: Tensor, masks: Masks) -> Tensor:
        return self.of_patches(at_targets(patchify(images, self.inputs.patch_size), masks))

    @abstractmethod
    def of_patches(self, patches: Tensor) -> Tensor:
        """Targets [..., num_features] of patches [..., C * patch_size**2]."""


class FeatureGridTarget(Target):
    """A target that is made of features of every patch of the whole image.

    In two steps, because a hierarchy makes coarser grids of features between them.
    """

    @classmethod
    def check_levels(cls, params: Any) -> Problem | str | None:
        return None

    @abstractmethod
    def encode(self, target_encoder: nn.Module, images: Tensor) -> Tensor:
        """Features of every patch, [B, N, D]."""

    @abstractmethod
    def of_features(self, features: Tensor, masks: Masks) -> Tensor:
        """Targets [B, M, T, num_features] made of features [B, N, D], on whatever grid the masks are."""

    @torch.no_grad()
    def compute(self, target_encoder: nn.Module, images: Tensor, masks: Masks) -> Tensor:
        return self.of_features(self.encode(target_encoder, images), masks)


def at_targets(features: Tensor, masks: Masks) -> Tensor:
    """Select features [B, N, D] at the target patches -> [B, M, T, D]."""
    batch, blocks, patches = masks.target.shape
    index = masks.target.indices.reshape(batch, blocks * patches, 1).expand(-1, -1, features.shape[-1])
    return features.gather(1, index).reshape(batch, blocks, patches, -1)


def require_targets(target: Target, targets: object, masks: Masks) -> None:
    """Refuse what a target computed, unless it has the shape of the masks.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    shape = (*masks.target.shape, target.num_features)
    device = masks.target.device
    require_tensor(target, "compute", targets, shape, "[B, M, T, num_features]", device=device)


def require_num_features(target: Target) -> None:
    """Refuse a target that does not say how many numbers the predictor puts out for a patch.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    count = target.num_features
    fits = isinstance(count, int) and not isinstance(count, bool) and count > 0
    require(target, "num_features", fits, count, "an int of at least 1")


def require_features(target: FeatureGridTarget, features: object, images: Tensor) -> None:
    """Refuse what the first half of a target computed, unless it is features of every patch.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    side = target.inputs.patch_size
    shape = (len(images), (images.shape[2] // side) * (images.shape[3] // side), target.inputs.embed_dim)
    require_tensor(target, "encode", features, shape, "[B, N, D]", device=images.device)


TARGETS: Registry[Target] = Registry("target", Target)
