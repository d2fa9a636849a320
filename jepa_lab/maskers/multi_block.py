"""The paper's multi-block masks: several target blocks, and a large context block without them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import LEAST_SUCCESS, MASKERS, Masker, Masks
from jepa_lab.maskers.block_params import BlockParams
from jepa_lab.maskers.blocks import cover, largest_remainder, positions_at
from jepa_lab.maskers.discrete import Discrete
from jepa_lab.maskers.patches import patches_of
from jepa_lab.maskers.ranges import AspectRatioRange, ScaleRange
from jepa_lab.maskers.redraw import Redraw, failure_rate
from jepa_lab.maskers.shapes import Size

_KEYS = ("num_targets", "target_scale", "num_hidden_blocks", "hidden_scale", "context_scale", "min_context_patches")
"""Parameters that decide together whether enough context is left."""


@dataclass(frozen=True)
class _Sizes:
    """Height and width of the blocks of each kind, every tensor [1 or images, 1 or blocks of the kind].

    Attributes:
        hidden: None where there are no hidden blocks.
    """

    target: tuple[Tensor, ...]
    context: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...] | None

    @classmethod
    def of(cls, target: Size, context: Size, hidden: Size | None) -> _Sizes:
        """The same sizes for all images."""

        def tensors(size: Size) -> tuple[Tensor, ...]:
            return tuple(torch.tensor([[length]]) for length in size)

        return cls(tensors(target), tensors(context), None if hidden is None else tensors(hidden))


@MASKERS.register(
    "multi_block",
    summary="M target blocks and one large context block minus every target (the paper's); blocks to hide by choice",
    source="Assran et al. 2023, arXiv:2301.08243, sec. 3; hidden blocks: H-JEPA notes (context masks)",
)
class MultiBlock(Masker):
    """Target blocks may overlap each other; the context is one block minus every target and every hidden block.

    Hidden blocks are no targets, so that the context has to do without what nobody asks for either; they lie anywhere,
    and what they share with a target stays a target.

    Scale and aspect ratio are independent uniform draws; every position inside the grid is equally probable,
    the last row and column included; a block may be as large as the grid. An image whose context keeps fewer
    than `min_context_patches` is drawn again, targets included.

    Differs from the released code: independent draws, all positions, sizes per image, and a redraw instead of
    letting a context overlap a target (tests/unit/maskers/test_multi_block.py). The released behaviour is
    `reference_multi_block`.
    """

    class Params(BlockParams):
        """What the user chooses."""

        num_targets: int = Field(4, ge=1, le=256, description="M, target blocks of an image.")
        target_scale: ScaleRange = Field((0.15, 0.2), description="Area of a target block / area of the grid.")
        target_aspect_ratio: AspectRatioRange = Field((0.75, 1.5), description="Aspect ratio of a target block.")
        context_scale: ScaleRange = Field(
            (0.85, 1.0),
            description="Area of the context block, before targets are removed / area of the grid.",
        )
        context_aspect_ratio: AspectRatioRange = Field(
            (1.0, 1.0),
            description="Aspect ratio of the context block; a wide grid may want another than 1.",
        )
        num_hidden_blocks: int = Field(
            0, ge=0, le=256, description="Blocks of an image that are taken out of the context and are no targets."
        )
        hidden_scale: ScaleRange = Field((0.15, 0.2), description="Area of a hidden block / area of the grid.")
        hidden_aspect_ratio: AspectRatioRange = Field((0.75, 1.5), description="Aspect ratio of a hidden block.")
        block_sizes: Literal["batch", "image", "block"] = Field(
            "image",
            description="Who shares a size: all images of a batch, the blocks of a kind of an image, or nobody.",
        )

    params: Params

    def __init__(self, params: Params, grid: Grid) -> None:
        super().__init__(params, grid)
        self.num_target_blocks = params.num_targets
        self._target_sizes = params.sizes(grid, params.target_scale, params.target_aspect_ratio)
        self._context_sizes = params.sizes(grid, params.context_scale, params.context_aspect_ratio)
        self._hidden_sizes = None
        if params.num_hidden_blocks > 0:
            self._hidden_sizes = params.sizes(grid, params.hidden_scale, params.hidden_aspect_ratio)
        self._redraw = Redraw(
            self._refuse_or_failure_rate(),
            f"of masker multi_block on the {grid} grid left an image with fewer than "
            f"min_context_patches={params.min_context_patches}; {self._remedy()}",
        )
        self.max_context_patches, self.max_target_patches = self._largest_counts()

    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        """See `Masker.sample`; waits for the device only where many draws fail (`Redraw.must_look`)."""
        shared = self._draw_sizes(1, generator) if self.params.block_sizes == "batch" else None

        def candidates(images: int) -> tuple[Tensor, Tensor]:
            blocks = self._place(images, shared or self._draw_sizes(images, generator), generator)
            return blocks[:, -1].sum(dim=-1) >= self.params.min_context_patches, blocks

        (blocks,) = self._redraw.draw(batch_size, candidates)  # [B, M + 1, N]
        return Masks(
            patches_of(blocks[:, -1:], self.max_context_patches),
            patches_of(blocks[:, :-1], self.max_target_patches),
        )

    def _draw_sizes(self, images: int, generator: torch.Generator) -> _Sizes:
        each = self.params.block_sizes == "block"
        target = self._target_sizes.draw((images, self.params.num_targets if each else 1), generator)
        context = self._context_sizes.draw((images, 1), generator)
        if self._hidden_sizes is None:
            return _Sizes(target, context, None)
        hidden = self._hidden_sizes.draw((images, self.params.num_hidden_blocks if each else 1), generator)
        return _Sizes(target, context, hidden)

    def _place(self, images: int, sizes: _Sizes, generator: torch.Generator) -> Tensor:
        """Draw positions for `images` images: M targets, then the context without them, [images, M + 1, N] bool.

        All blocks are placed at once: on a GPU a step draws its masks in few kernels.
        """
        kinds = [(sizes.target, self.params.num_targets), (sizes.context, 1)]
        if sizes.hidden is not None:
            kinds.append((sizes.hidden, self.params.num_hidden_blocks))
        height, width = (
            torch.cat([size[axis].expand(images, count) for size, count in kinds], dim=1) for axis in (0, 1)
        )
        draws = [torch.rand((2, images, count), generator=generator, device=height.device) for _, count in kinds]
        top, left = positions_at(torch.cat(draws, dim=-1), height, width, self.grid)
        blocks = cover(top, left, height, width, self.grid)  # [images, M + 1 + hidden ones, N]
        context = self.params.num_targets
        taken = blocks[:, :context].any(dim=1)
        if sizes.hidden is not None:
            taken |= blocks[:, context + 1 :].any(dim=1)
        blocks[:, context] &= ~taken
        return blocks[:, : context + 1]

    def _refuse_or_failure_rate(self) -> float:
        """Upper estimate of the probability that a draw leaves too little context.

        Where sizes are shared by the batch only positions are drawn again, so the worst sizes must do.

        Raises:
            ConfigError: if almost no draw leaves enough context.
        """
        generator = torch.Generator().manual_seed(0)
        draws = max(200, min(2000, 2_000_000 // (self.params.num_targets * self.grid.num_patches)))
        if self.params.block_sizes != "batch":
            return self._failure_rate(self._draw_sizes(draws, generator), draws, "", generator)
        hardest = self._hardest_sizes()
        draws = max(200, draws // len(hardest))
        failure = 0.0
        for t, c, h in hardest:
            hidden = "" if h is None else f", {h[0]}x{h[1]} hidden blocks"
            where = f" with {t[0]}x{t[1]} target blocks{hidden} and a {c[0]}x{c[1]} context block for the whole batch"
            failure = max(failure, self._failure_rate(_Sizes.of(t, c, h), draws, where, generator))
        return failure

    def _failure_rate(self, sizes: _Sizes, draws: int, where: str, generator: torch.Generator) -> float:
        counts = self._place(draws, sizes, generator)[:, -1].sum(dim=-1)
        p = self.params
        enough = int((counts >= p.min_context_patches).sum())
        if enough < LEAST_SUCCESS * draws:
            raise ConfigError(
                f"masker multi_block: on the {self.grid} grid only {enough} of {draws} draws{where} leave "
                f"min_context_patches={p.min_context_patches} (mean {counts.double().mean():.1f} context "
                f"patches; num_targets={p.num_targets}, target_scale={p.target_scale}, {self._hidden_in_words()}"
                f"context_scale={p.context_scale}); {self._remedy()}",
                keys=_KEYS,
            )
        return failure_rate(enough, draws)

    def _hardest_sizes(self) -> list[tuple[Size, Size, Size | None]]:
        """Sizes of targets and hidden blocks that fit in no larger one, with context sizes that hold no smaller one.

        A larger block can be placed so as to contain a smaller one, so these leave the least context.
        """

        def inside(a: Size, b: Size) -> bool:
            return a != b and a[0] <= b[0] and a[1] <= b[1]

        def largest(sizes: Discrete) -> list[Size]:
            return [size for size in sizes.outcomes if not any(inside(size, other) for other in sizes.outcomes)]

        contexts = self._context_sizes.outcomes
        hard_contexts = [c for c in contexts if not any(inside(other, c) for other in contexts)]
        hidden = [None] if self._hidden_sizes is None else largest(self._hidden_sizes)
        return list(itertools.product(largest(self._target_sizes), hard_contexts, hidden))

    def _largest_counts(self) -> tuple[int, int]:
        """A bound of the context patches, and the most patches of a target block, that a valid draw can have.

        Without hidden blocks the bound is attained.
        """
        hidden = [] if self._hidden_sizes is None else self._hidden_sizes.outcomes
        remainders = {}
        for c in self._context_sizes.outcomes:
            beside_hidden = max((largest_remainder(c, h, self.grid) for h in hidden), default=self.grid.num_patches)
            for t in self._target_sizes.outcomes:
                remainders[t, c] = min(largest_remainder(c, t, self.grid), beside_hidden)
        possible = [t for (t, _), left in remainders.items() if left >= self.params.min_context_patches]
        return max(remainders.values()), max(t[0] * t[1] for t in possible)

    def _hidden_in_words(self) -> str:
        p = self.params
        return (
            f"num_hidden_blocks={p.num_hidden_blocks}, hidden_scale={p.hidden_scale}, " if p.num_hidden_blocks else ""
        )

    def _remedy(self) -> str:
        shared = " or set block_sizes: image," if self.params.block_sizes == "batch" else ""
        hidden = "" if self.params.num_hidden_blocks == 0 else ", num_hidden_blocks, hidden_scale"
        return (
            f"lower target_scale, num_targets{hidden} or min_context_patches, raise context_scale,{shared} "
            "or use a smaller patch_size"
        )
