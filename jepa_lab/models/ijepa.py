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
from jepa_lab.models.levels import Levels, PatchesAlone
from jepa_lab.models.packing import Packer, Packing, WithoutPadding, pad
from jepa_lab.models.predictor import LevelPredictor, Predictor
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.registry import ComponentParams
from jepa_lab.regularizers.base import Regularizer, Representations, require_terms
from jepa_lab.regularizers.none import NoRegularizer
from jepa_lab.targets.base import Target


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
        hierarchy: the levels that are predicted; by default the patches alone.

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
        hierarchy: Levels | None = None,
    ) -> None:
        super().__init__()
        self.context_encoder = context_encoder
        self.target_encoder = copy.deepcopy(context_encoder).requires_grad_(False)
        self.predictor = predictor
        self.target = target
        self.loss = loss
        self.regularizer = NoRegularizer(ComponentParams()) if regularizer is None else regularizer
        self.hierarchy = PatchesAlone() if hierarchy is None else hierarchy

    def forward(
        self,
        images: Tensor,
        masks: Masks,
        num_valid: Tensor | None = None,
        drop_path: Tensor | None = None,
        packings: Sequence[Packing] | None = None,
    ) -> Prediction:
        """Predict the targets from the context.

        Args:
            images: [B, C, H, W] float, channel-normalised.
            masks: of these images.
            num_valid: `count_targets` of the batch that these images are a part of; by default of themselves.
            drop_path: [B, depth, 2] factors on the branches of the context encoder, see `DropPath`; None, as in any
                evaluation, for 1. All context views of an image share them: it meets one shallower network.
            packings: `pack` of the masks; by default as suits the device.
        """
        if packings is None:
            packings = self.pack(masks, self.packer_for(masks.context.device))
        of_levels = self.hierarchy.masks(masks)
        targets = self.hierarchy.targets(self.target, self.target_encoder, images, of_levels, packings)
        context = self.context_encoder.encode(images, packings[0].context, drop_path)  # [n, D]
        contexts = self.hierarchy.contexts(context, of_levels, packings)
        counts = (_count(of_levels) if num_valid is None else num_valid).unbind()
        predictors = self.hierarchy.predictors_beside(self.predictor)
        levels = zip(predictors, contexts, targets, of_levels, packings, counts, strict=True)
        outcomes = [self._predict(*level) for level in levels]
        finest = outcomes[0]
        loss, terms = self.hierarchy.total([outcome.loss for outcome in outcomes])
        views = packings[0].padded(context.to(finest.predictions.dtype), masks)  # [B, E, K, D]
        found = Representations(views, finest.predictions, finest.wanted, masks)
        more = self.regularizer.terms(found)
        if is_first(self.regularizer, "terms"):
            require_terms(self.regularizer, more)
        if more:
            share = _pairs(masks) / counts[0]  # of the batch, by targets: shares of all parts of a batch add up to 1
            terms["prediction_loss"] = loss
            for name, term in more.items():
                terms[name] = share * term.value
                loss = loss + term.weight * terms[name]
        for packing in packings:
            if packing.fits is not None:  # tokens that were cut off must not be learned from: the step is refused
                loss = loss.masked_fill(~packing.fits, float("inf"))
        return Prediction(loss, finest.predictions, targets[0], terms)

    def packer_for(self, device: torch.device) -> Packer:
        """How to lay tokens out: without padding where the host need not wait for the device to know its extent."""
        if device.type != "cpu" or torch.compiler.is_compiling():
            return pad
        return WithoutPadding(self.context_encoder.size.embed_dim, self.predictor.size.embed_dim)

    def pack(self, masks: Masks, packer: Packer) -> list[Packing]:
        """The tokens of every level, as the packer lays them out."""
        num_patches = self.context_encoder.grid.num_patches  # coarser levels take no patches of images
        return [packer(of_level, num_patches, at) for at, of_level in enumerate(self.hierarchy.masks(masks))]

    def count_targets(self, masks: Masks) -> Tensor:
        """Pairs of a context view and a valid target patch at every level, at least 1 each, [levels] int64."""
        return _count(self.hierarchy.masks(masks))

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Trained parameters of the context side."""
        yield from self.context_encoder.parameters()
        yield from self.hierarchy.context_parameters()

    def predictor_parameters(self) -> Iterator[nn.Parameter]:
        """Trained parameters of what predicts the levels; a predictor that they share is among them once."""
        yield from self.predictor.parameters()
        yield from self.hierarchy.predictor_parameters()

    def _predict(
        self,
        level: LevelPredictor,
        context: Tensor,
        targets: Tensor,
        masks: Masks,
        packing: Packing,
        count: Tensor,
    ) -> _Outcome:
        predictor, place = level
        of_tokens = predictor(context, packing.pairs, packing.context.patches, place)  # [m, D]
        # Half precision is for products; differences of features are taken in at least single precision.
        dtype = torch.promote_types(of_tokens.dtype, torch.float32)
        shape = (*masks.context.shape[:2], *masks.target.shape[1:])  # (B, E, M, T)
        predictions = packing.pairs.spread.of(of_tokens.to(dtype)).unflatten(0, shape)
        wanted = targets.to(dtype).unsqueeze(1).expand_as(predictions)
        per_patch = loss_per_patch(self.loss, predictions, wanted)
        return _Outcome(mean_over_valid(per_patch, masks.target.valid, count), predictions, wanted)

    @torch.no_grad()
    def update_target_encoder(self, weight: Tensor) -> None:
        """EMA step: target = (1 - weight) * target + weight * context, over parameters.

        Args:
            weight: scalar tensor in [0, 1], 1 - momentum; 0 leaves the target encoder as it is.
        """
        target: list[Tensor] = [*self.target_encoder.parameters(), *self.hierarchy.target_parameters()]
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


def _count(of_levels: Sequence[Masks]) -> Tensor:
    counts = torch.stack([_pairs(masks) for masks in of_levels])
    return counts.clamp(min=1)  # of a level whose cells are no target anywhere the loss is 0


def _pairs(masks: Masks) -> Tensor:
    """Pairs of a context view and a valid target patch, int64 scalar."""
    return masks.target.counts().sum() * masks.context.shape[1]
