"""What a masker is, and the `Masks` it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.contracts import require, require_tensor
from jepa_lab.grid import Grid
from jepa_lab.maskers.patches import Patches
from jepa_lab.registry import Component, ComponentParams, Registry


@dataclass(frozen=True)
class Masks:
    """Patch indices of the context views and the target blocks of a batch.

    Shapes are the same from batch to batch; images that have fewer patches are padded, and validity says so.

    Attributes:
        context: [B, E, K] of E context views.
        target: [B, M, T] of M target blocks.
    """

    context: Patches
    target: Patches

    def buffer(self) -> Masks:
        """A copy with memory of its own, for masks of this shape with and without padding."""
        return Masks(self.context.buffer(), self.target.buffer())

    def copy_(self, other: Masks) -> None:
        """Take over other masks of the same shape, in place; these are a `buffer`."""
        self.context.copy_(other.context)
        self.target.copy_(other.target)

    def tensors(self) -> list[Tensor]:
        """Indices, and validity where there is padding."""
        return [*self.context.tensors(), *self.target.tensors()]

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, images: slice) -> Masks:
        """The masks of some images of the batch (used to accumulate gradients)."""
        return Masks(self.context[images], self.target[images])

    def to(self, device: torch.device) -> Masks:
        """The same masks on another device."""
        return Masks(self.context.to(device), self.target.to(device))


def require_masks(masker: Masker, masks: object, batch_size: int, device: torch.device) -> None:
    """Refuse what a masker returned for a batch, unless it is what `Masker.sample` promises; reads no value.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    call = f"sample(batch_size={batch_size})"
    require(masker, call, isinstance(masks, Masks), masks, "a Masks")
    assert isinstance(masks, Masks)
    views, blocks = masker.num_context_views, masker.num_target_blocks
    for name, patches, shape, letters in (
        ("context", masks.context, (batch_size, views, masker.max_context_patches), "[B, E, K]"),
        ("target", masks.target, (batch_size, blocks, masker.max_target_patches), "[B, M, T]"),
    ):
        where = f"{call}.{name}"
        require(masker, where, isinstance(patches, Patches), patches, "a Patches")
        require_tensor(masker, f"{where}.indices", patches.indices, shape, letters, dtypes=[torch.int64], device=device)
        if patches.valid is not None:
            require_tensor(masker, f"{where}.valid", patches.valid, shape, letters, dtypes=[torch.bool], device=device)


def require_patches_of_grid(masker: Masker, masks: Masks) -> None:
    """Refuse indices that are no patches of the masker's grid; reads them, so it is for a few masks on the CPU.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    for name, indices in (("context", masks.context.indices), ("target", masks.target.indices)):
        low, high = (int(indices.min()), int(indices.max())) if indices.numel() else (0, 0)
        inside = low >= 0 and high < masker.grid.num_patches
        expected = f"indices of the {masker.grid.num_patches} patches of the {masker.grid} grid, from 0"
        require(masker, f"sample(...).{name}.indices", inside, f"indices from {low} to {high}", expected)


LEAST_SUCCESS = 0.01
"""A setting under which a smaller share of draws leaves `min_context_patches` is refused."""


class MaskerParams(ComponentParams):
    """What every masker lets the user choose."""

    min_context_patches: int = Field(
        4, ge=1, description="An image whose context keeps fewer patches is drawn again, targets included."
    )


class Masker(Component[Grid], ABC):
    """Draws context views and target blocks for a batch of images.

    Args:
        params: the masker's own `Params`; `check` gets the grid.
        grid: the patch grid of the images.
    Raises:
        ConfigError: if no draw, or almost none, can satisfy the settings on this grid.

    Attributes:
        num_context_views: E. num_target_blocks: M.
        max_context_patches: K of every batch. max_target_patches: T of every batch.
    """

    Params: type[ComponentParams] = MaskerParams
    num_context_views: int = 1
    num_target_blocks: int
    max_context_patches: int
    max_target_patches: int

    def __init__(self, params: ComponentParams, grid: Grid) -> None:
        self.params = params
        self.grid = grid

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
        """Draw the masks of a batch on the generator's device, vectorised over the images.

        Returns:
            Masks with K = `max_context_patches` and T = `max_target_patches`, whatever was drawn.
        """


MASKERS: Registry[Masker] = Registry("masker", Masker)
