"""H-JEPA: coarser levels above the patches, each with a prediction and a loss of its own.

Level 1 is the patch grid; each level above it has half as many cells a side, rounded up (14 -> 7 -> 4).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from jepa_lab.contracts import is_first, require_tensor
from jepa_lab.downsampling.base import Downsampling
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import Masks
from jepa_lab.models.level_masks import CountTargetsOn, level_grids, level_masks, visible_target_shares
from jepa_lab.models.levels import Levels
from jepa_lab.models.packing import Packing
from jepa_lab.models.predictor import LevelPredictor, Predictor, PredictorLevel
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.targets.base import FeatureGridTarget, Target, require_features, require_targets


class Pyramid(nn.Module):
    """Features of all levels, made of those of the finest.

    Args:
        grids: of the levels, finest first.
        downsamplings: one a step from a level to the next coarser one.
        skip_connections: add to each cell the feature of the cell above it, from the coarsest level down, so that
            every level knows of all coarser ones.
    Source: levels: H-JEPA notes; the way down: Lin et al. 2017, arXiv:1612.03144 (FPN), sec. 3. Differs: nothing is
        learned on the way down, so that one level is the plain model.
    """

    def __init__(self, grids: Sequence[Grid], downsamplings: Sequence[Downsampling], skip_connections: bool) -> None:
        super().__init__()
        assert len(downsamplings) == len(grids) - 1, "one for each step"
        self.grids = tuple(grids)
        self.downsamplings = nn.ModuleList(downsamplings)
        self.skip_connections = skip_connections

    def forward(self, features: Tensor, seen: Tensor) -> list[Tensor]:
        """Features of every level.

        Args:
            features: [S, N, D] on the finest grid. seen: [S, N] bool; what stands at other cells does not matter.
        Returns:
            [S, N_l, D] for each level; without meaning at cells of which nothing is seen.
        """
        levels = [features]
        for grid, downsampling in zip(self.grids[:-1], self.downsamplings, strict=True):
            children, exists = grid.children(features.device)
            seen_children = seen[:, children] & exists  # [S, N', 4]
            coarser = downsampling(levels[-1][:, children], seen_children)
            if is_first(downsampling, "forward"):
                shape = (*seen_children.shape[:2], features.shape[-1])
                require_tensor(downsampling, "forward", coarser, shape, "[S, N', D]", device=features.device)
            levels.append(coarser.to(features.dtype))  # not half precision, in which products may be
            seen = seen_children.any(dim=-1)
        return self._with_skips(levels) if self.skip_connections else levels

    def at_grid(self, grid: Grid) -> Pyramid:
        """This pyramid over another grid of patches, with the very weights of this one."""
        downsamplings = cast("Iterable[Downsampling]", self.downsamplings)
        return Pyramid(level_grids(grid, len(self.grids)), [*downsamplings], self.skip_connections)

    def _with_skips(self, levels: list[Tensor]) -> list[Tensor]:
        above = levels[-1]
        result = [above]
        for grid, features in zip(reversed(self.grids[:-1]), reversed(levels[:-1]), strict=True):
            above = features + above[:, grid.parents(features.device)]
            result.append(above)
        return result[::-1]


class Hierarchy(Levels):
    """The levels above the patches: their pyramids, what predicts them, and the weights of all losses.

    The target must be a `FeatureGridTarget`. The target side has a pyramid of its own, which starts as a copy and
    follows by EMA, as the target encoder does.

    Args:
        pyramid: of the context side, trained by gradient.
        predictors: of the levels above the finest: predictors, or levels of the one that predicts the finest.
        loss_weights: of all levels, finest first.
        count_targets_on: what at least half of a target cell must be targets of, see `level_masks`.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        predictors: Sequence[Predictor | PredictorLevel],
        loss_weights: Sequence[float],
        count_targets_on: CountTargetsOn = "patches",
    ) -> None:
        super().__init__()
        assert len(pyramid.grids) == len(loss_weights) == len(predictors) + 1, "one for each level"
        self.context_pyramid = pyramid
        self.target_pyramid = copy.deepcopy(pyramid).requires_grad_(False)
        self.predictors = nn.ModuleList(predictors)
        self.loss_weights = tuple(loss_weights)
        self.count_targets_on = count_targets_on

    def predictors_beside(self, finest: Predictor) -> list[LevelPredictor]:
        above = cast("Iterable[Predictor | PredictorLevel]", self.predictors)
        return [(finest, None), *(each.beside(finest) for each in above)]

    def predictor_parameters(self) -> Iterable[nn.Parameter]:
        return self.predictors.parameters()

    def masks(self, masks: Masks) -> list[Masks]:
        return level_masks(masks, self.context_pyramid.grids, self.count_targets_on)

    def visible_target_shares(self, masks: Masks) -> dict[str, Tensor]:
        shares = visible_target_shares(self.masks(masks), self.context_pyramid.grids)
        return {f"visible_targets_level_{level}": share for level, share in enumerate(shares, start=1)}

    @torch.no_grad()
    def targets(
        self,
        target: Target,
        encoder: VisionTransformer,
        images: Tensor,
        masks: Sequence[Masks],
        packings: Sequence[Packing],
    ) -> list[Tensor]:
        assert isinstance(target, FeatureGridTarget), "checked with the configuration"
        features = target.encode(encoder, images)  # [B, N, D]
        if is_first(target, "encode"):
            require_features(target, features, images)
        of_levels = self.target_pyramid(features, torch.ones_like(features[..., 0], dtype=torch.bool))
        found: list[Tensor] = []
        for of_level, masks_there in zip(of_levels, masks, strict=True):
            found.append(target.of_features(of_level, masks_there))
            if is_first(target, f"of_features of level {len(found)}"):
                require_targets(target, found[-1], masks_there)
        return found

    def contexts(self, context: Tensor, masks: Sequence[Masks], packings: Sequence[Packing]) -> list[Tensor]:
        num_patches = self.context_pyramid.grids[0].num_patches
        seen = masks[0].context.coverage(num_patches).flatten(0, 1)  # [B * E, N]
        views = packings[0].padded(context, masks[0])  # [B, E, K, D]
        of_levels = self.context_pyramid(_on_grid(views, masks[0], num_patches), seen)
        return [
            packing.drop_context.of(_at_context(of_level, masks_there))
            for of_level, masks_there, packing in zip(of_levels, masks, packings, strict=True)
        ]

    def total(self, losses: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        weighted = [weight * loss for loss, weight in zip(losses, self.loss_weights, strict=True)]
        return torch.stack(weighted).sum(), {f"loss_level_{level}": loss for level, loss in enumerate(losses, start=1)}

    def context_parameters(self) -> Iterable[nn.Parameter]:
        return self.context_pyramid.parameters()

    def target_parameters(self) -> Iterable[nn.Parameter]:
        return self.target_pyramid.parameters()

    def flops_above(self) -> list[float]:
        grids, downsamplings = self.context_pyramid.grids[1:], self.context_pyramid.downsamplings
        steps = zip(grids, downsamplings, strict=True)
        return [grid.num_patches * cast(Downsampling, downsampling).flops() for grid, downsampling in steps]


def _on_grid(context: Tensor, masks: Masks, num_patches: int) -> Tensor:
    """Context tokens [B, E, K, D] at their places, [B * E, N, D]; elsewhere zeros, which mean nothing."""
    indices = masks.context.padded_with(num_patches)  # padding goes into a cell that is cut off
    index = indices.flatten(0, 1).unsqueeze(-1).expand(-1, -1, context.shape[-1])
    grid = context.new_zeros(index.shape[0], num_patches + 1, context.shape[-1])
    return grid.scatter(1, index, context.flatten(0, 1))[:, :num_patches]


def _at_context(features: Tensor, masks: Masks) -> Tensor:
    """Features [B * E, N, D] at the context cells, [B * E * K, D]."""
    indices = masks.context.indices.flatten(0, 1)  # [B * E, K]
    return features.gather(1, indices.unsqueeze(-1).expand(-1, -1, features.shape[-1])).flatten(0, 1)
