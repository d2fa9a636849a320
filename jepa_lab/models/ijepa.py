"""I-JEPA: context encoder, target encoder, predictor, and the loss between prediction and target."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_lab.losses.base import Loss, mean_over_valid
from jepa_lab.maskers.base import Masks
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.targets.base import Target


@dataclass(frozen=True)
class Prediction:
    """What a forward pass gives.

    Attributes:
        loss: scalar.
        predictions: [B, E, M, T, D]. targets: [B, M, T, D].
    """

    loss: Tensor
    predictions: Tensor
    targets: Tensor


class IJepa(nn.Module):
    """The joint-embedding predictive architecture.

    Args:
        context_encoder: trained by gradient; sees context patches only.
        predictor: trained by gradient.
        target: what is predicted.
        loss: how far the prediction is from it.

    The target encoder starts as a copy of the context encoder and follows it by EMA alone.
    Source: Assran et al. 2023, arXiv:2301.08243.
    """

    def __init__(self, context_encoder: VisionTransformer, predictor: Predictor, target: Target, loss: Loss) -> None:
        super().__init__()
        self.context_encoder = context_encoder
        self.target_encoder = copy.deepcopy(context_encoder).requires_grad_(False)
        self.predictor = predictor
        self.target = target
        self.loss = loss

    def forward(
        self, images: Tensor, masks: Masks, num_valid: Tensor | None = None, drop_path: Tensor | None = None
    ) -> Prediction:
        """Predict the targets from the context.

        Args:
            images: [B, C, H, W] float, channel-normalised.
            masks: of these images.
            num_valid: valid (view, target patch) pairs of the batch that these images are a part of; by
                default the images are the whole batch.
            drop_path: [B, depth, 2] factors on the branches of the context encoder, see `DropPath`; None, as in any
                evaluation, for 1. All context views of an image share them: it meets one shallower network.
        """
        targets = self.target.compute(self.target_encoder, images, masks)  # [B, M, T, D]
        batch, views = masks.context.shape[:2]
        context = self.context_encoder(
            images.repeat_interleave(views, dim=0) if views > 1 else images,
            masks.context.flatten(0, 1),
            None if masks.context_valid is None else masks.context_valid.flatten(0, 1),
            None if drop_path is None else drop_path.repeat_interleave(views, dim=0),
        )
        context = context.unflatten(0, (batch, views))  # [B, E, K, D]
        predictions = self.predictor(context, masks)
        # Half precision is for products; differences of features are taken in at least single precision.
        dtype = torch.promote_types(predictions.dtype, torch.float32)
        per_patch = self.loss.per_patch(predictions.to(dtype), targets.to(dtype).unsqueeze(1).expand_as(predictions))
        return Prediction(mean_over_valid(per_patch, masks.target_valid, num_valid), predictions, targets)

    @torch.no_grad()
    def update_target_encoder(self, momentum: float, apply: Tensor) -> None:
        """EMA step: target = momentum * target + (1 - momentum) * context, over parameters.

        Args:
            momentum: EMA decay in [0, 1]; 1 freezes the target encoder.
            apply: scalar tensor, 1 to update, 0 to leave the weights as they are (decided on the device).
        """
        target: list[Tensor] = list(self.target_encoder.parameters())
        context: list[Tensor] = list(self.context_encoder.parameters())
        step = list(torch._foreach_sub(context, target))
        torch._foreach_mul_(step, (1 - momentum) * apply.to(step[0].dtype))
        torch._foreach_add_(target, step)
