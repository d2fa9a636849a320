"""Several context blocks united into one context, and target blocks that avoid it."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import LEAST_SUCCESS, MASKERS, Masker, Masks
from jepa_lab.maskers.block_params import BlockParams
from jepa_lab.maskers.blocks import cover, draw_positions, marked_inside
from jepa_lab.maskers.patches import patches_of
from jepa_lab.maskers.ranges import AspectRatioRange, ScaleRange
from jepa_lab.maskers.redraw import Redraw, failure_rate

MAX_CANDIDATES = 32
"""A third of the draws fail with the default blocks on a 14x14 grid, which takes 28 candidates."""


_KEYS = ("num_context_blocks", "num_targets", "target_scale", "context_scale", "min_context_patches")
"""Parameters that decide together whether enough context is left."""


@MASKERS.register(
    "multi_context",
    summary="several small context blocks united into one context, and target blocks that avoid it",
    source="the Nexus guide to I-JEPA (4 context blocks of 0.15 to 0.2, 2 targets of 0.1 to 0.15), after Assran et al. "
    "2023, arXiv:2301.08243, sec. 3",
)
class MultiContext(Masker):
    """The context is drawn first and keeps all its patches; each target lies where no context block is.

    The other way round than `multi_block`, whose targets lie anywhere and are taken out of the context. Every block
    has its own size, from independent uniform draws of scale and aspect ratio. Context blocks lie anywhere and may
    overlap, and their union is one context. A target block is uniform over the positions that avoid the whole
    context; target blocks may overlap each other, as in `multi_block`. An image in which a target block finds no
    such position, or whose context has fewer than `min_context_patches`, is drawn again, all blocks included.

    Differs from the guide, which tries a target's size and position together a hundred times, so that small
    targets are favoured, and goes on with fewer targets, or none, if they all fail; and which merges the targets into
    one mask (`predictor.target_sequences: joint` here). Pinned by tests/unit/maskers/test_multi_context.py.
    """

    class Params(BlockParams):
        """What the user chooses."""

        num_context_blocks: int = Field(4, ge=1, le=64, description="Context blocks of an image, before their union.")
        context_scale: ScaleRange = Field((0.15, 0.2), description="Area of a context block / area of the grid.")
        context_aspect_ratio: AspectRatioRange = Field((0.75, 1.5), description="Aspect ratio of a context block.")
        num_targets: int = Field(2, ge=1, le=64, description="M, target blocks of an image.")
        target_scale: ScaleRange = Field((0.1, 0.15), description="Area of a target block / area of the grid.")
        target_aspect_ratio: AspectRatioRange = Field((0.75, 1.5), description="Aspect ratio of a target block.")

    params: Params

    def __init__(self, params: Params, grid: Grid) -> None:
        super().__init__(params, grid)
        self.num_target_blocks = params.num_targets
        self._context_sizes = params.sizes(grid, params.context_scale, params.context_aspect_ratio)
        self._target_sizes = params.sizes(grid, params.target_scale, params.target_aspect_ratio)
        self._redraw = Redraw(
            self._refuse_or_failure_rate(),
            f"of masker multi_context on the {grid} grid left an image without room for its targets, or with fewer "
            f"than min_context_patches={params.min_context_patches}; {self._remedy()}",
            MAX_CANDIDATES,
        )
        self.max_context_patches, self.max_target_patches = self._largest_counts()

    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        """See `Masker.sample`; waits for the device only where many draws fail (`Redraw.must_look`)."""
        context, height, width, free = self._redraw.draw(batch_size, lambda n: self._candidates(n, generator))
        keys = torch.rand(free.shape, generator=generator, device=free.device)
        corner = keys.masked_fill(~free, -1.0).argmax(dim=-1)  # [B, M]
        target = cover(corner // self.grid.width, corner % self.grid.width, height, width, self.grid)
        return Masks(
            patches_of(context.unsqueeze(1), self.max_context_patches),
            patches_of(target, self.max_target_patches),
        )

    def _candidates(self, images: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw everything but the targets' positions.

        Returns:
            Whether an image is good [images]; its context [images, N]; heights and widths of its targets
            [images, M]; the top-left corners at which each target avoids the context [images, M, N].
        """
        height, width = self._context_sizes.draw((images, self.params.num_context_blocks), generator)
        top, left = draw_positions(height, width, self.grid, generator)
        context = cover(top, left, height, width, self.grid).any(dim=1)  # [images, N]

        height, width = self._target_sizes.draw((images, self.params.num_targets), generator)
        free = marked_inside(context.unsqueeze(1), height, width, self.grid) == 0  # [images, M, N]
        corner = torch.zeros_like(height)
        free &= cover(corner, corner, self.grid.height - height + 1, self.grid.width - width + 1, self.grid)
        enough = context.sum(dim=-1) >= self.params.min_context_patches
        return free.any(dim=-1).all(dim=-1) & enough, context, height, width, free

    def _refuse_or_failure_rate(self) -> float:
        """Upper estimate of the probability that an image must be drawn again.

        Raises:
            ConfigError: if almost every image must.
        """
        p = self.params
        at_once = max(1, 2_000_000 // ((p.num_context_blocks + p.num_targets) * self.grid.num_patches))
        draws = max(200, min(2000, at_once))
        generator = torch.Generator().manual_seed(0)
        parts = []  # of draws: is it good, is there room, context patches
        for start in range(0, draws, at_once):
            good, context, _, _, free = self._candidates(min(at_once, draws - start), generator)
            parts.append(torch.stack((good, free.any(dim=-1).all(dim=-1), context.sum(dim=-1))))
        good, has_room, count = torch.cat(parts, dim=1)
        successes = int(good.sum())
        if successes < LEAST_SUCCESS * draws:
            raise ConfigError(
                f"masker multi_context: on the {self.grid} grid only {successes} of {draws} draws are good: "
                f"{int(has_room.sum())} leave room for every target outside the context, and a context (mean "
                f"{count.double().mean():.1f} patches) must have min_context_patches={p.min_context_patches} "
                f"(num_context_blocks={p.num_context_blocks}, context_scale={p.context_scale}, "
                f"num_targets={p.num_targets}, target_scale={p.target_scale}); {self._remedy()}",
                keys=_KEYS,
            )
        return failure_rate(successes, draws)

    def _largest_counts(self) -> tuple[int, int]:
        """A bound of the context patches, and the most patches of a target block, that a valid draw can have."""
        pairs = [
            (c[0] * c[1], t[0] * t[1])
            for c in self._context_sizes.outcomes
            for t in self._target_sizes.outcomes
            if c[0] + t[0] <= self.grid.height or c[1] + t[1] <= self.grid.width  # the two fit beside each other
        ]
        contexts, targets = zip(*pairs, strict=True)
        blocks = self.params.num_context_blocks * max(contexts)
        return min(blocks, self.grid.num_patches - min(targets)), max(targets)

    def _remedy(self) -> str:
        return (
            "lower num_context_blocks, context_scale, num_targets, target_scale or min_context_patches, "
            "or use a smaller patch_size"
        )
