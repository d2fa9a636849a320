"""Multi-block masks as the released code draws them, quirks included."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS, Masker, Masks
from jepa_lab.maskers.blocks import (
    cover,
    draw_positions,
    largest_remainder,
    marked_inside,
    smallest_remainder,
)
from jepa_lab.maskers.discrete import Discrete
from jepa_lab.maskers.patches import patches_of
from jepa_lab.maskers.ranges import AspectRatioRange, ScaleRange
from jepa_lab.maskers.shapes import block_sizes_from_one_draw
from jepa_lab.registry import ComponentParams

TRIES = 20
"""Failed positions of the context block after which one more target is no longer respected."""


@MASKERS.register(
    "reference_multi_block",
    summary="multi-block masks exactly as the released I-JEPA code draws them, quirks included",
    source="facebookresearch/ijepa, multi-block masks; Assran et al. 2023, arXiv:2301.08243, sec. 3",
)
class ReferenceMultiBlock(Masker):
    """The released behaviour, for comparison with results obtained by it; `multi_block` is the repaired one.

    - Block sizes are drawn once a batch, and one uniform number sets scale and aspect ratio together.
    - Blocks are smaller than the grid, and the last row and column are never used: `room` below.
    - A mask must keep more than `min_keep` patches. After 20 failed positions of a context block the last
      target is no longer respected, after 20 more the last two, and so on: it can then overlap targets.

    Truncation of the context to the batch minimum is `context_batching: prefix`. Differs from the released
    code: randomness comes from the run's generator alone, not from a counter and the worker's global state;
    and a block not larger than `min_keep`, with which that code loops forever, is refused. Pinned by
    tests/unit/maskers/test_reference_multi_block.py against numbers of the released code.
    """

    class Params(ComponentParams):
        """What the user chooses."""

        num_targets: int = Field(4, ge=1, le=256, description="M, target blocks of an image.")
        target_scale: ScaleRange = Field((0.15, 0.2), description="Area of a target block / area of the grid.")
        target_aspect_ratio: AspectRatioRange = Field((0.75, 1.5), description="Height / width of a target block.")
        num_context_views: int = Field(1, ge=1, le=16, description="E, context blocks of an image.")
        context_scale: ScaleRange = Field(
            (0.85, 1.0), description="Area of a context block, before targets are removed / area of the grid."
        )
        min_keep: int = Field(4, ge=0, description="Every mask keeps more patches than this.")
        allow_overlap: bool = Field(False, description="Leave the targets' patches in the context.")

    params: Params

    def __init__(self, params: Params, grid: Grid) -> None:
        super().__init__(params, grid)
        self.num_context_views = params.num_context_views
        self.num_target_blocks = params.num_targets
        self.room = Grid(grid.height - 1, grid.width - 1)
        self._target_sizes = block_sizes_from_one_draw(
            grid.num_patches, params.target_scale, params.target_aspect_ratio, limit=self.room
        )
        self._context_sizes = block_sizes_from_one_draw(
            grid.num_patches, params.context_scale, (1.0, 1.0), limit=self.room
        )
        self._refuse_endless("target", "target_scale", params.target_scale, self._target_sizes)
        self._refuse_endless("context", "context_scale", params.context_scale, self._context_sizes)
        self.max_target_patches = max(height * width for height, width in self._target_sizes.outcomes)
        self.max_context_patches = self._largest_context()

    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        """See `Masker.sample`; target blocks have the same number of patches throughout a batch."""
        height, width = self._target_sizes.draw((1, 1), generator)
        context_height, context_width = self._context_sizes.draw((1,), generator)

        shape = (batch_size, self.params.num_targets)
        height, width = height.expand(shape), width.expand(shape)
        top, left = draw_positions(height, width, self.room, generator)
        targets = cover(top, left, height, width, self.grid)  # [B, M, N]
        contexts = self._draw_contexts(targets, context_height, context_width, generator)  # [B, E, N]

        return Masks(
            patches_of(contexts, self.max_context_patches),
            patches_of(targets, self.max_target_patches),
        )

    def _draw_contexts(self, targets: Tensor, height: Tensor, width: Tensor, generator: torch.Generator) -> Tensor:
        """Context views [B, E, N] by rejection over positions, without a loop.

        With a share q of good positions, one of 20 uniform tries is good with probability 1 - (1 - q)^20, and
        the first good one is uniform among the good positions. So it suffices to count what every position
        would keep.

        Args:
            targets: [B, M, N] bool. height, width: [1] int64, of the context blocks.
        """
        views = self.params.num_context_views
        free = self._free(targets)  # [B, L, N]: level l ignores the last l targets
        inside = (  # [N]: positions of the top-left corner that are drawn
            cover(height * 0, height * 0, self.room.height - height + 1, self.room.width - width + 1, self.grid)
        )
        kept = marked_inside(free, height, width, self.grid)  # [B, L, N]
        good = (kept > self.params.min_keep) & inside
        share = good.sum(dim=-1) / inside.sum(dim=-1)  # [B, L], 1 at the last level
        success = 1 - (1 - share) ** TRIES

        batch, levels = share.shape
        uniform = torch.rand((batch, views, levels), generator=generator, device=free.device)
        level = (uniform < success.unsqueeze(1)).int().argmax(dim=-1)  # [B, E]: the first that succeeds
        image = torch.arange(batch, device=free.device).unsqueeze(1)  # [B, 1]
        keys = torch.rand((batch, views, good.shape[-1]), generator=generator, device=free.device)
        corner = keys.masked_fill(~good[image, level], -1.0).argmax(dim=-1)  # [B, E]
        block = cover(corner // self.grid.width, corner % self.grid.width, height, width, self.grid)
        return block & free[image, level]

    def _free(self, targets: Tensor) -> Tensor:
        """Patches open to a context [B, L, N]: outside the first M targets, the first M - 1, ..., all."""
        anywhere = torch.ones_like(targets[:, :1])
        if self.params.allow_overlap:
            return anywhere
        within_first = targets.int().cummax(dim=1).values.bool()  # [B, M, N]
        return torch.cat((~within_first.flip(1), anywhere), dim=1)

    def _largest_context(self) -> int:
        """Most context patches that occur: what one target leaves, or all once no target is respected."""
        contexts = self._context_sizes.outcomes
        if self.params.allow_overlap:
            return max(height * width for height, width in contexts)
        pairs = [(c, t) for c in contexts for t in self._target_sizes.outcomes]
        return max(
            c[0] * c[1] if smallest_remainder(c, t) <= self.params.min_keep else largest_remainder(c, t, self.room)
            for c, t in pairs
        )

    def _refuse_endless(self, kind: str, field: str, scale: tuple[float, float], sizes: Discrete) -> None:
        """Raise ConfigError if a block can occur that never keeps more than `min_keep` patches."""
        height, width = min(sizes.outcomes, key=lambda size: size[0] * size[1])
        if height * width <= self.params.min_keep:
            raise ConfigError(
                f"masker reference_multi_block: on the {self.grid} grid {field}={scale} allows a {kind} "
                f"block of {height}x{width}={height * width} patches, which is not more than "
                f"min_keep={self.params.min_keep}, so no draw of it can succeed; "
                f"raise {field}, lower min_keep, or use a smaller patch_size",
                keys=[field, "min_keep"],
            )
