"""What maskers that draw rectangular blocks let the user choose about their shapes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MaskerParams
from jepa_lab.maskers.discrete import Discrete
from jepa_lab.maskers.shapes import Range, block_sizes, chained_block_sizes, transposed


class BlockParams(MaskerParams):
    """How a scale and an aspect ratio become the height and the width of a block."""

    aspect_ratio_is: Literal["height_over_width", "width_over_height"] = Field(
        "height_over_width",
        description="What an aspect ratio divides by what: the released code's blocks are taller than wide above 1, "
        "those of other descriptions wider than tall.",
    )
    block_rounding: Literal["each_side", "one_from_other", "one_from_other_exact_area"] = Field(
        "each_side",
        description="How sides become whole patches: of int(N * scale) patches each side is rounded by itself (the "
        "released code); or the side that the aspect ratio divides by is rounded, and the other one is the rounding of "
        "that times the aspect ratio; or the same of N * scale as it is.",
    )

    def sizes(self, grid: Grid, scale: Range, aspect_ratio: Range) -> Discrete:
        """The exact distribution of (height, width) of blocks on a grid; they have at least one patch, and fit."""
        if self.aspect_ratio_is == "height_over_width":
            return self._sizes(grid.num_patches, scale, aspect_ratio, grid)
        turned = Grid(grid.width, grid.height)
        return transposed(self._sizes(grid.num_patches, scale, aspect_ratio, turned))

    def _sizes(self, num_patches: int, scale: Range, aspect_ratio: Range, limit: Grid) -> Discrete:
        """The same for an aspect ratio of height / width."""
        if self.block_rounding == "each_side":
            return block_sizes(num_patches, scale, aspect_ratio, limit)
        whole = self.block_rounding == "one_from_other"
        return chained_block_sizes(num_patches, scale, aspect_ratio, limit, whole_patches=whole)
