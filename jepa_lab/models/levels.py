"""The levels at which targets are predicted: the patches, and what may lie above them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from jepa_lab.contracts import is_first
from jepa_lab.maskers.base import Masks
from jepa_lab.models.packing import Packing
from jepa_lab.models.predictor import LevelPredictor, Predictor
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.targets.base import Target, require_targets


class Levels(nn.Module, ABC):
    """What the model predicts at each level, and from what; finest first, at the patches."""

    @abstractmethod
    def predictors_beside(self, finest: Predictor) -> list[LevelPredictor]:
        """What predicts each level.

        Args:
            finest: the predictor of the patches.
        """

    @abstractmethod
    def predictor_parameters(self) -> Iterable[nn.Parameter]:
        """What is trained to predict, beside the predictor of the patches."""

    @abstractmethod
    def masks(self, masks: Masks) -> list[Masks]:
        """The masks of every level.

        Args:
            masks: of the patches.
        """

    @abstractmethod
    def visible_target_shares(self, masks: Masks) -> dict[str, Tensor]:
        """By name, how much of the targets of each level is seen; nothing where targets are patches.

        Args:
            masks: of the patches.
        """

    @abstractmethod
    def targets(
        self,
        target: Target,
        encoder: VisionTransformer,
        images: Tensor,
        masks: Sequence[Masks],
        packings: Sequence[Packing],
    ) -> list[Tensor]:
        """The targets of every level, [B, M, T, D], without gradients.

        Args:
            encoder: the target encoder. images: [B, C, H, W]. masks, packings: of every level.
        """

    @abstractmethod
    def contexts(self, context: Tensor, masks: Sequence[Masks], packings: Sequence[Packing]) -> list[Tensor]:
        """The context tokens of every level, [n, D].

        Args:
            context: [n, D] of the context encoder. masks, packings: of every level.
        """

    @abstractmethod
    def total(self, losses: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """One loss of the levels' losses, and by name what it is made of where it is made of more than one."""

    @abstractmethod
    def context_parameters(self) -> Iterable[nn.Parameter]:
        """What is trained on the context side, beside the encoder."""

    @abstractmethod
    def target_parameters(self) -> Iterable[nn.Parameter]:
        """The same on the target side, in the same order; they follow by EMA."""

    @abstractmethod
    def flops_above(self) -> list[float]:
        """Operations that make the features of each level above the patches, of one image (or view)."""


class PatchesAlone(Levels):
    """One level: the patches, as in I-JEPA. It has no parameters."""

    def predictors_beside(self, finest: Predictor) -> list[LevelPredictor]:
        return [(finest, None)]

    def predictor_parameters(self) -> Iterable[nn.Parameter]:
        return ()

    def masks(self, masks: Masks) -> list[Masks]:
        return [masks]

    def visible_target_shares(self, masks: Masks) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def targets(
        self,
        target: Target,
        encoder: VisionTransformer,
        images: Tensor,
        masks: Sequence[Masks],
        packings: Sequence[Packing],
    ) -> list[Tensor]:
        (of_patches,), (packing,) = masks, packings
        if target.reads_targets_alone:
            targets = target.compute_rows(encoder, images, of_patches, packing.target_rows)
        else:
            targets = target.compute(encoder, images, of_patches)
        if is_first(target, "compute"):
            require_targets(target, targets, of_patches)
        return [targets]

    def contexts(self, context: Tensor, masks: Sequence[Masks], packings: Sequence[Packing]) -> list[Tensor]:
        return [context]

    def total(self, losses: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        (loss,) = losses
        return loss, {}

    def context_parameters(self) -> Iterable[nn.Parameter]:
        return ()

    def target_parameters(self) -> Iterable[nn.Parameter]:
        return ()

    def flops_above(self) -> list[float]:
        return []
