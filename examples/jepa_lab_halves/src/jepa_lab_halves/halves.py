"""The masker `halves`: columns on one side of the image are context, the others are to be predicted."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import Key, Problem
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS, Masker, MaskerParams, Masks
from jepa_lab.maskers.patches import Patches


class HalvesParams(MaskerParams):
    """What a user chooses; `jepa-lab list masker` and the schema of pipelines show it."""

    context_columns: int = Field(4, ge=1, description="Columns of patches that are context, on a side that is drawn.")


@MASKERS.register(
    "halves",
    summary="Columns on one side of the image are context, all others one target block.",
    source="an example of jepa-lab's documentation",
)
class Halves(Masker):
    """For each image the context lies left or right, with equal probability.

    Args:
        params: see `HalvesParams`.
        grid: the patch grid of the images, which the run knows.
    """

    Params = HalvesParams
    num_target_blocks = 1

    def __init__(self, params: HalvesParams, grid: Grid) -> None:
        super().__init__(params, grid)
        _, column = grid.coordinates()  # [N] of each patch, in raster order
        is_left, is_right = column < params.context_columns, column >= grid.width - params.context_columns
        self._context = _indices(is_left, is_right)  # [2, K]
        self._target = _indices(~is_left, ~is_right)  # [2, T]
        self.max_context_patches, self.max_target_patches = self._context.shape[1], self._target.shape[1]

    @classmethod
    def check(cls, params: Any, known: Grid) -> Problem | None:
        """Something must be left to predict; called before anything is built."""
        if params.context_columns < known.width:
            return None
        return Problem(
            Key("context_columns"),
            f" must be below the {known.width} columns of the {known} patch grid, got {params.context_columns}; "
            "lower it, or use smaller patches",
        )

    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        """Context [B, 1, K] and target [B, 1, T]: rows of two tables, by a draw for each image."""
        device = generator.device
        self._context, self._target = self._context.to(device), self._target.to(device)  # moved once
        side = torch.randint(2, (batch_size,), generator=generator, device=device)
        return Masks(Patches(self._context[side].unsqueeze(1)), Patches(self._target[side].unsqueeze(1)))


def _indices(left: Tensor, right: Tensor) -> Tensor:
    """The patches where the context lies left and where it lies right, each in raster order."""
    return torch.stack([left.nonzero().flatten(), right.nonzero().flatten()])
