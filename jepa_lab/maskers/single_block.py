"""One target block; the context is everything else."""

from __future__ import annotations

import torch
from pydantic import Field

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import LEAST_SUCCESS, MASKERS, Masker, Masks
from jepa_lab.maskers.block_params import BlockParams
from jepa_lab.maskers.blocks import cover, draw_positions
from jepa_lab.maskers.patches import patches_of
from jepa_lab.maskers.ranges import AspectRatioRange, ScaleRange


@MASKERS.register(
    "single_block",
    summary="one target block; the context is its complement",
    source="Assran et al. 2023, arXiv:2301.08243, ablation of masking strategies ('block')",
)
class SingleBlock(Masker):
    """A target block of independently drawn scale and aspect ratio at any position; the rest is context.

    Sizes are drawn for each image. The number of context patches follows from the size of the block, so
    drawing again until `min_context_patches` are left is a draw from the sizes that leave them.
    """

    class Params(BlockParams):
        """What the user chooses."""

        target_scale: ScaleRange = Field((0.6, 0.6), description="Area of the target block / area of the grid.")
        target_aspect_ratio: AspectRatioRange = Field((0.75, 1.5), description="Aspect ratio of the target block.")

    num_target_blocks = 1

    def __init__(self, params: Params, grid: Grid) -> None:
        super().__init__(params, grid)
        drawn = params.sizes(grid, params.target_scale, params.target_aspect_ratio)

        def enough(size: tuple[int, ...]) -> bool:
            return grid.num_patches - size[0] * size[1] >= params.min_context_patches

        success = drawn.probability(enough)
        if success < LEAST_SUCCESS:
            height, width = min(drawn.outcomes, key=lambda size: size[0] * size[1])
            raise ConfigError(
                f"masker single_block: on the {grid} grid the smallest block of target_scale="
                f"{params.target_scale} is {height}x{width}, and {success:.2%} of draws leave "
                f"min_context_patches={params.min_context_patches} of {grid.num_patches} patches; "
                "lower target_scale or min_context_patches, or use a smaller patch_size",
                keys=["target_scale", "min_context_patches"],
            )
        self._sizes = drawn.given(enough)
        areas = [height * width for height, width in self._sizes.outcomes]
        self._counts_vary = min(areas) < max(areas)
        self.max_target_patches = max(areas)
        self.max_context_patches = grid.num_patches - min(areas)

    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        """See `Masker.sample`; validity is None where every block that occurs has the same area."""
        height, width = self._sizes.draw((batch_size, 1), generator)
        top, left = draw_positions(height, width, self.grid, generator)
        block = cover(top, left, height, width, self.grid)  # [B, 1, N]
        return Masks(
            patches_of(~block, self.max_context_patches, padded=self._counts_vary),
            patches_of(block, self.max_target_patches, padded=self._counts_vary),
        )
