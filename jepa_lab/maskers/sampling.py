"""The masks of a batch as a training step takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_lab.contracts import is_first
from jepa_lab.maskers.base import Masker, Masks, require_masks, require_patches_of_grid
from jepa_lab.maskers.batching import ContextBatching, batch_context, trim, union_of_targets


@dataclass(frozen=True)
class MaskSampler:
    """Draws the masks of a batch, made equal in shape by the chosen batching."""

    masker: Masker
    batching: ContextBatching
    joint_targets: bool

    def sample(self, batch_size: int, generator: torch.Generator, *, fixed_shapes: bool = False) -> Masks:
        """Masks of `batch_size` images on the generator's device.

        Args:
            fixed_shapes: whether shapes must not change, as for a compiled model or a captured step.
        """
        drawn = self.masker.sample(batch_size, generator)
        if is_first(self.masker, "sample"):
            require_masks(self.masker, drawn, batch_size, generator.device)
            if generator.device.type == "cpu":  # elsewhere the host would wait for the device
                require_patches_of_grid(self.masker, drawn)
        masks = batch_context(drawn, self.batching, generator)
        if self.joint_targets:
            masks = union_of_targets(masks, self.masker.grid.num_patches)
        # On a CPU shapes may change from step to step, so padding that no image needs is cut off. Elsewhere that
        # would make the device wait for the host, and a compiled step compile again.
        return trim(masks) if generator.device.type == "cpu" and not fixed_shapes else masks
