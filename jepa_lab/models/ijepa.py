"""I-JEPA: context encoder, target encoder, predictor, and the loss between prediction and target."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from jepa_lab.contracts import is_first
from jepa_lab.losses.base import Loss, loss_per_patch, mean_over_valid
from jepa_lab.maskers.base import Masks
from jepa_lab.models.hierarchy import Hierarchy, Level
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.registry import ComponentParams
from jepa_lab.regularizers.base import Regularizer, Representations, require_terms
from jepa_lab.regularizers.none import NoRegularizer
from jepa_lab.targets.base import FeatureGridTarget, Target, require_features, require_targets


@dataclass(frozen=True)
class Prediction:
    """What a forward pass gives.

    Attributes:
        loss: scalar, what is minimised.
        predictions: [B, E, M, T, D]. targets: [B, M, T, D]. Both of the finest level.
        terms: what the loss is made of, by name, where it is more than the prediction loss: scalars, not weighted.
    """

    loss: Tensor
    predictions: Tensor
    targets: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class IJepa(nn.Module):
    """The joint-embedding predictive architecture.

    Args:
        context_encoder: trained by gradient; sees context patches only.
        predictor: trained by gradient.
        target: what is predicted.
        loss: how far the prediction is from it.
        regularizer: what is added to the loss; by default nothing. It is computed at the finest level.
        hierarchy: coarser levels above the patches; None without. Needs a `FeatureGridTarget`.

    The target encoder starts as a copy of the context encoder and follows it by EMA alone.
    Source: Assran et al. 2023, arXiv:2301.08243.
    """

    def __init__(
        self,
        context_encoder: VisionTransformer,
        predictor: Predictor,
        target: Target,
        loss: Loss,
        regularizer: Regularizer | None = None,
        hierarchy: Hierarchy | None = None,
    ) -> None:
        super().__init__()
        self.context_encoder = context_encoder
        self.target_encoder = copy.deepcopy(context_encoder).requires_grad_(False)
        self.predictor = predictor
        self.target = target
        self.loss = loss
        self.regularizer = NoRegularizer(ComponentParams()) if regularizer is None else regularizer
        self.hierarchy = hierarchy

    def forward(
        self, images: Tensor, masks: Masks, num_valid: Tensor | None = None, drop_path: Tensor | None = None
    ) -> Prediction:
        """Predict the targets from the context.

        Args:
            images: [B, C, H, W] float, channel-normalised.
            masks: of these images.
            num_valid: `count_targets` of the batch that these images are a part of; by default of themselves.
            drop_path: [B, depth, 2] factors on the branches of the context encoder, see `DropPath`; None, as in any
                evaluation, for 1. All context views of an image share them: it meets one shallower network.
        """
        from_target_side = self._target_side(images, masks)
        context = self._encode_context(images, masks, drop_path)  # [B, E, K, D]
        levels = self._levels(from_target_side, context, masks)
        if num_valid is None and self.hierarchy is not None:
            num_valid = self.count_targets(masks)
        counts = [None] if num_valid is None else num_valid.unbind()
        outcomes = [
            self._predict(level, predictor, count)
            for level, predictor, count in zip(levels, self._predictors(), counts, strict=True)
        ]
        finest = outcomes[0]
        loss, terms = finest.loss, {}
        if self.hierarchy is not None:
            loss = sum_of_levels([outcome.loss for outcome in outcomes], self.hierarchy.loss_weights)
            terms = {f"loss_level_{level}": outcome.loss for level, outcome in enumerate(outcomes, start=1)}
        found = Representations(context.to(finest.predictions.dtype), finest.predictions, finest.wanted, masks)
        more = self.regularizer.terms(found)
        if is_first(self.regularizer, "terms"):
            require_terms(self.regularizer, more)
        if more:
            share = _share_of_batch(masks, num_valid)
            terms |= {"prediction_loss": loss} | {name: share * term.value for name, term in more.items()}
            for name, term in more.items():
                loss = loss + term.weight * terms[name]
        return Prediction(loss, finest.predictions, levels[0].targets, terms)

    def count_targets(self, masks: Masks) -> Tensor:
        """Pairs of a context view and a valid target patch at every level, at least 1 each, [levels] int64."""
        of_levels = [masks] if self.hierarchy is None else self.hierarchy.masks(masks)
        counts = torch.stack([found.target.counts().sum() * found.context.shape[1] for found in of_levels])
        return counts.clamp(min=1)  # of a level whose cells are no target anywhere the loss is 0

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Trained parameters of the context side."""
        yield from self.context_encoder.parameters()
        if self.hierarchy is not None:
            yield from self.hierarchy.context_pyramid.parameters()

    def predictor_parameters(self) -> Iterator[nn.Parameter]:
        """Trained parameters of the predictors of all levels."""
        for predictor in self._predictors():
            yield from predictor.parameters()

    def _predictors(self) -> list[nn.Module]:
        return [self.predictor] if self.hierarchy is None else [self.predictor, *self.hierarchy.predictors]

    def _encode_context(self, images: Tensor, masks: Masks, drop_path: Tensor | None) -> Tensor:
        """Features of the context patches, [B, E, K, D]."""
        batch, views = masks.context.shape[:2]
        context = self.context_encoder(
            images.repeat_interleave(views, dim=0) if views > 1 else images,
            masks.context.sequences(),
            None if drop_path is None else drop_path.repeat_interleave(views, dim=0),
        )
        return context.unflatten(0, (batch, views))

    @torch.no_grad()
    def _target_side(self, images: Tensor, masks: Masks) -> Tensor:
        """The targets [B, M, T, D], or below a hierarchy the features [B, N, D] that all its levels are made of."""
        if self.hierarchy is None:
            targets = self.target.compute(self.target_encoder, images, masks)
            if is_first(self.target, "compute"):
                require_targets(self.target, targets, masks)
            return targets
        assert isinstance(self.target, FeatureGridTarget), "checked with the configuration"
        features = self.target.encode(self.target_encoder, images)
        if is_first(self.target, "encode"):
            require_features(self.target, features, images)
        return features

    def _levels(self, from_target_side: Tensor, context: Tensor, masks: Masks) -> list[Level]:
        """What is predicted, and from what: at the patches, and above them."""
        if self.hierarchy is None:
            return [Level(context, from_target_side, masks)]
        assert isinstance(self.target, FeatureGridTarget), "checked with the configuration"
        return self.hierarchy.levels(context, from_target_side, self.target, masks)

    def _predict(self, level: Level, predictor: nn.Module, count: Tensor | None) -> _Outcome:
        predictions = predictor(level.context, level.masks)
        # Half precision is for products; differences of features are taken in at least single precision.
        dtype = torch.promote_types(predictions.dtype, torch.float32)
        wanted = level.targets.to(dtype).unsqueeze(1).expand_as(predictions)
        per_patch = loss_per_patch(self.loss, predictions.to(dtype), wanted)
        loss = mean_over_valid(per_patch, level.masks.target.valid, count)
        return _Outcome(loss, predictions.to(dtype), wanted)

    @torch.no_grad()
    def update_target_encoder(self, weight: Tensor) -> None:
        """EMA step: target = (1 - weight) * target + weight * context, over parameters.

        Args:
            weight: scalar tensor in [0, 1], 1 - momentum; 0 leaves the target encoder as it is.
        """
        target: list[Tensor] = list(self.target_encoder.parameters())
        if self.hierarchy is not None:
            target += self.hierarchy.target_pyramid.parameters()
        context: list[Tensor] = list(self.encoder_parameters())
        step = list(torch._foreach_sub(context, target))
        torch._foreach_mul_(step, weight.to(step[0].dtype))
        torch._foreach_add_(target, step)


@dataclass(frozen=True)
class _Outcome:
    """Of one level: its loss, and predictions and targets [B, E, M, T, D] in at least single precision."""

    loss: Tensor
    predictions: Tensor
    wanted: Tensor


def sum_of_levels(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted sum of the levels' losses."""
    return torch.stack([weight * loss for loss, weight in zip(losses, weights, strict=True)]).sum()


def _share_of_batch(masks: Masks, num_valid: Tensor | None) -> Tensor | float:
    """How much of the batch these images are, by their target patches: shares of all parts add up to 1."""
    return 1.0 if num_valid is None else masks.target.counts().sum() * masks.context.shape[1] / num_valid[0]
