"""What a masker does on a grid, measured over many images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masker
from jepa_lab.maskers.batching import ContextBatching, batch_context


@dataclass(frozen=True)
class PatchCounts:
    """Mean, smallest and largest number of patches."""

    mean: float
    minimum: int
    maximum: int


@dataclass(frozen=True)
class MaskStatistics:
    """Patch counts and frequencies over `num_images` images.

    Attributes:
        drawn_context: patches of a context view as the masker draws it.
        context: patches of a context view after `context_batching`: what the encoder sees.
        target: patches of a target block. target_union_mean: mean patches of an image in any target block.
        never_used: share of grid positions that are neither context nor target in any image.
        context_frequency: [Gh, Gw] share of images and views in which a position is context, after batching.
        target_frequency: [Gh, Gw] share of images in which a position lies in a target block.
    """

    num_images: int
    drawn_context: PatchCounts
    context: PatchCounts
    target: PatchCounts
    target_union_mean: float
    never_used: float
    context_frequency: Tensor
    target_frequency: Tensor


_SAMPLED_BATCHES = 8
_SAMPLED_IMAGES = 1 << 14
"""Large batches need fewer to say as much; `subset` and `prefix` depend on the size of a batch, so it stays."""


def sampled_batches(batch_size: int) -> int:
    """How many batches say enough about the masks of a pipeline."""
    return max(1, min(_SAMPLED_BATCHES, _SAMPLED_IMAGES // batch_size))


def mask_statistics(
    masker: Masker, batching: ContextBatching, batch_size: int, num_batches: int, seed: int
) -> MaskStatistics:
    """Draw `num_batches` batches on the CPU from a generator of its own and count.

    `subset` and `prefix` depend on the batch size: give the run's.
    """
    generator = torch.Generator().manual_seed(seed)
    num_patches = masker.grid.num_patches
    drawn, batched, targets, unions = [], [], [], []
    context_hits = torch.zeros(num_patches)
    target_hits = torch.zeros(num_patches)
    for _ in range(num_batches):
        masks = masker.sample(batch_size, generator)
        drawn.append(masks.context.counts())
        masks = batch_context(masks, batching, generator)
        batched.append(masks.context.counts())
        targets.append(masks.target.counts())
        is_context = masks.context.coverage(num_patches)  # [B, E, N]
        is_target = masks.target.coverage(num_patches).any(dim=1)  # [B, N]
        unions.append(is_target.sum(dim=-1))
        context_hits += is_context.float().mean(dim=1).sum(dim=0)
        target_hits += is_target.sum(dim=0)
    num_images = batch_size * num_batches
    shape = (masker.grid.height, masker.grid.width)
    return MaskStatistics(
        num_images=num_images,
        drawn_context=_counts(drawn),
        context=_counts(batched),
        target=_counts(targets),
        target_union_mean=float(torch.cat(unions).double().mean()),
        never_used=float(((context_hits == 0) & (target_hits == 0)).double().mean()),
        context_frequency=(context_hits / num_images).reshape(shape),
        target_frequency=(target_hits / num_images).reshape(shape),
    )


def _counts(parts: list[Tensor]) -> PatchCounts:
    counts = torch.cat(parts)
    return PatchCounts(float(counts.double().mean()), int(counts.min()), int(counts.max()))
