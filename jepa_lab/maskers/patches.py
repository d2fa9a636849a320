"""Some patches of every image of a batch: padded indices [..., K] with validity, made of coverage [..., N] and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patches:
    """Patch indices of sequences: the context views of a batch [B, E, K], or its target blocks [B, M, T].

    Valid entries come first and are in raster order; a padded entry holds index 0, a position that exists.

    Attributes:
        indices: [B, E, K] int64.
        valid: [B, E, K] bool, False at padding; None where every entry is valid.
    """

    indices: Tensor
    valid: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, images: slice) -> Patches:
        """The patches of some images of the batch."""
        return self._both(lambda tensor: tensor[images])

    @property
    def shape(self) -> torch.Size:
        """Of the indices, (B, E, K)."""
        return self.indices.shape

    @property
    def device(self) -> torch.device:
        """Where the indices are."""
        return self.indices.device

    def to(self, device: torch.device) -> Patches:
        """The same patches on another device."""
        return self._both(lambda tensor: tensor.to(device))

    def buffer(self) -> Patches:
        """A copy with memory of its own, for patches of this shape with and without padding."""
        return Patches(self.indices.clone(), self.validity().clone())

    def copy_(self, other: Patches) -> None:
        """Take over other patches of the same shape, in place; these are a `buffer`."""
        assert self.valid is not None, "made by `buffer`"
        self.indices.copy_(other.indices)
        self.valid.copy_(other.validity())

    def tensors(self) -> list[Tensor]:
        """Indices, and validity where there is padding."""
        return [self.indices] if self.valid is None else [self.indices, self.valid]

    def sequences(self) -> Patches:
        """Each view of each image by itself, [B * E, K]."""
        return self._both(lambda tensor: tensor.flatten(0, 1))

    def first(self, length: int) -> Patches:
        """The first `length` entries of each sequence, padding included."""
        return self._both(lambda tensor: tensor[..., :length])

    def validity(self) -> Tensor:
        """`valid` as a tensor in any case, [B, E, K] bool."""
        return torch.ones_like(self.indices, dtype=torch.bool) if self.valid is None else self.valid

    def counts(self) -> Tensor:
        """Valid patches of each sequence, [B, E] int64."""
        if self.valid is None:
            return torch.full(self.shape[:-1], self.shape[-1], device=self.device)
        return self.valid.sum(dim=-1)

    def coverage(self, num_patches: int) -> Tensor:
        """Which of the N patches of the grid are among the valid ones, [B, E, N] bool; the inverse of `patches_of`."""
        # Padded entries fall into an extra column, which is cut off.
        columns = self.padded_with(num_patches)
        covered = torch.zeros(*self.shape[:-1], num_patches + 1, dtype=torch.bool, device=self.device)
        return covered.scatter_(-1, columns, True)[..., :num_patches]

    def padded_with(self, index: int) -> Tensor:
        """The indices, [B, E, K], with `index` where there is padding."""
        return self.indices if self.valid is None else self.indices.masked_fill(~self.valid, index)

    def _both(self, change: Callable[[Tensor], Tensor]) -> Patches:
        return Patches(change(self.indices), None if self.valid is None else change(self.valid))


def patches_of(coverage: Tensor, length: int, *, padded: bool = True) -> Patches:
    """The covered patches, first and in raster order.

    Args:
        coverage: [..., N] bool; at most `length` patches of each row are covered.
        length: K, entries of the result; a row with fewer patches is padded with index 0.
        padded: False promises that exactly `length` patches of each row are covered; validity is then None.
    """
    running = coverage.cumsum(dim=-1)  # [..., N]: covered patches up to and including this one
    wanted = torch.arange(1, length + 1, device=coverage.device)
    # The k-th covered patch is the first at which k patches have been covered.
    indices = torch.searchsorted(running, wanted.expand(*running.shape[:-1], length).contiguous())  # [..., K]
    if not padded:
        return Patches(indices)
    valid = wanted <= running[..., -1:]  # [..., K]
    return Patches(indices.masked_fill_(~valid, 0), valid)


def mean_of_valid(tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Average of each sequence's valid tokens, [..., D]; 0 where none is valid.

    Args:
        tokens: [..., K, D]. valid: [..., K] bool, or None where every token is valid.
    """
    if valid is None:
        return tokens.mean(dim=-2)
    weight = valid.unsqueeze(-1)  # [..., K, 1]
    return tokens.masked_fill(~weight, 0.0).sum(dim=-2) / weight.sum(dim=-2).clamp(min=1)
