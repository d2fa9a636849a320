"""Which tokens of whole images are read, where only their target patches are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.maskers.patches import Patches


@dataclass(frozen=True)
class TargetRows:
    """Of the tokens [B * N] of whole images those at target patches, and where the masks have them.

    Attributes:
        read: [u] int64, image * N + patch, at least once for each target patch; None for all tokens.
        slots: [B * M * T] int64, which of the tokens that are read each entry of the masks is; any where it is padding.
    """

    read: Tensor | None
    slots: Tensor

    @classmethod
    def exact(cls, target: Patches, num_patches: int) -> TargetRows:
        """Every target patch once, in however many blocks it is; the host waits for their number."""
        covered = target.coverage(num_patches).any(dim=1).flatten()  # [B * N]
        read = covered.nonzero().flatten()
        if len(read) == 0:  # no target anywhere: what stands at padding is one token, whichever
            read = read.new_zeros(1)
        slot_of = torch.zeros_like(covered, dtype=torch.int64)
        slot_of[read] = torch.arange(len(read), device=target.device)
        return cls(read, slot_of.index_select(0, _tokens(target, num_patches)))

    @classmethod
    def of_fixed_size(cls, target: Patches, num_patches: int) -> TargetRows:
        """One token for each entry of the masks, padding too, where these are fewer than all patches."""
        tokens = _tokens(target, num_patches)
        if target.shape[1:].numel() >= num_patches:
            return cls(None, tokens)
        return cls(tokens, torch.arange(len(tokens), device=target.device))


def _tokens(target: Patches, num_patches: int) -> Tensor:
    """The token of each entry, [B * M * T]."""
    images = torch.arange(len(target), device=target.device)
    return (images[:, None, None] * num_patches + target.indices).flatten()
