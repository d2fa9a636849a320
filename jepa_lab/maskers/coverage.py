"""Two forms of the same masks: coverage [..., N] bool, and padded patch indices [..., K]."""

from __future__ import annotations

import torch
from torch import Tensor


def patches_of(coverage: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The covered patches, first and in raster order.

    Args:
        coverage: [..., N] bool; at most `length` patches of each row are covered.
        length: K, entries of the result; a row with fewer patches is padded with index 0.
    Returns:
        Indices [..., K] int64 and validity [..., K] bool.
    """
    running = coverage.cumsum(dim=-1)  # [..., N]: covered patches up to and including this one
    wanted = torch.arange(1, length + 1, device=coverage.device)
    valid = wanted <= running[..., -1:]  # [..., K]
    # The k-th covered patch is the first at which k patches have been covered.
    indices = torch.searchsorted(running, wanted.expand(valid.shape).contiguous())
    return indices.masked_fill_(~valid, 0), valid


def coverage_of(indices: Tensor, valid: Tensor | None, num_patches: int) -> Tensor:
    """Which patches occur among the valid indices; the inverse of `patches_of`.

    Args:
        indices: [..., K] int64. valid: [..., K] bool, or None where every entry is valid.
    Returns:
        [..., N] bool.
    """
    # Padded entries fall into an extra column, which is cut off.
    columns = indices if valid is None else indices.masked_fill(~valid, num_patches)
    covered = torch.zeros(*indices.shape[:-1], num_patches + 1, dtype=torch.bool, device=indices.device)
    return covered.scatter_(-1, columns, True)[..., :num_patches]
