"""Single patches at random: a share of them is target, the rest is context."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import LEAST_SUCCESS, MASKERS, Masker, MaskerParams, Masks
from jepa_lab.maskers.discrete import Discrete, floor_probabilities
from jepa_lab.maskers.patches import patches_of
from jepa_lab.maskers.ranges import RatioRange


@MASKERS.register(
    "random",
    summary="scattered patches: a random share is the one target 'block', the rest is context",
    source="facebookresearch/ijepa, random masks; Assran et al. 2023, arXiv:2301.08243, ablation ('random')",
)
class RandomPatches(Masker):
    """Of a permutation of an image's N patches, the first int(N * (1 - ratio)) are context, the rest target.

    The ratio is uniform, one draw a batch as in the released code, or one an image. The number of context
    patches follows from it, so drawing again until `min_context_patches` are left is a draw from the counts
    that suffice.
    """

    class Params(MaskerParams):
        """What the user chooses."""

        target_ratio: RatioRange = Field((0.4, 0.6), description="Share of an image's patches that are target.")
        ratio_per: Literal["batch", "image"] = Field(
            "batch", description="Whether the images of a batch share one draw of the ratio."
        )

    params: Params
    num_target_blocks = 1

    def __init__(self, params: Params, grid: Grid) -> None:
        super().__init__(params, grid)
        low, high = params.target_ratio
        counts = floor_probabilities(grid.num_patches * (1 - high), grid.num_patches * (1 - low))
        # A ratio above zero leaves at least one target, even where 1 - ratio is rounded to 1.
        drawn = Discrete({(min(count, grid.num_patches - 1),): p for count, p in counts.items()})
        success = drawn.probability(lambda count: count[0] >= params.min_context_patches)
        if success < LEAST_SUCCESS:
            raise ConfigError(
                f"masker random: on the {grid} grid target_ratio={params.target_ratio} leaves at most "
                f"{max(drawn.outcomes)[0]} of {grid.num_patches} patches as context, and {success:.2%} of "
                f"draws leave min_context_patches={params.min_context_patches}; "
                "lower target_ratio or min_context_patches, or use a smaller patch_size",
                keys=["target_ratio", "min_context_patches"],
            )
        self._context_counts = drawn.given(lambda count: count[0] >= params.min_context_patches)
        fewest, most = min(self._context_counts.outcomes)[0], max(self._context_counts.outcomes)[0]
        self._counts_vary = fewest < most
        self.max_context_patches = most
        self.max_target_patches = grid.num_patches - fewest

    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        """See `Masker.sample`; validity is None where the ratio leaves only one possible count."""
        draws = 1 if self.params.ratio_per == "batch" else batch_size
        (context_count,) = self._context_counts.draw((draws, 1), generator)  # [1 or B, 1]
        shape = (batch_size, self.grid.num_patches)
        order = torch.rand(shape, generator=generator, device=generator.device).argsort(dim=-1)
        place = order.argsort(dim=-1)  # [B, N]: the place of each patch in the permutation
        is_context = (place < context_count).unsqueeze(1)  # [B, 1, N]
        return Masks(
            patches_of(is_context, self.max_context_patches, padded=self._counts_vary),
            patches_of(~is_context, self.max_target_patches, padded=self._counts_vary),
        )
