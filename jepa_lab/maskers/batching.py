"""What happens to contexts that differ in their number of patches, and other ways to reshape masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.coverage import coverage_of, patches_of

ContextBatching = Literal["pad", "subset", "prefix"]
"""pad: every patch is kept; subset: a random subset of the batch's minimum; prefix: its first patches."""


def batch_context(masks: Masks, batching: ContextBatching, generator: torch.Generator) -> Masks:
    """Apply a choice of `context_batching`.

    `subset` and `prefix` leave every context with as many patches as the smallest one of the batch, all views
    counted. Shapes stay, so that a compiled step is compiled once; the choice changes validity. Targets stay:
    the released code truncates them to the batch minimum too, but its blocks have one size a batch.

    Args:
        generator: on the masks' device; `subset` alone draws from it.
    Source: facebookresearch/ijepa for `prefix`, which loses the bottom of the image; `subset` is its repair.
    """
    if masks.context_valid is None:
        return masks  # every context has the same number of patches
    return _BATCHINGS[batching](masks, masks.context_valid, generator)


def _pad(masks: Masks, valid: Tensor, generator: torch.Generator) -> Masks:
    return masks


def _prefix(masks: Masks, valid: Tensor, generator: torch.Generator) -> Masks:
    kept = torch.arange(valid.shape[-1], device=valid.device) < masks.context_counts().min()
    return _keep(masks, kept.expand_as(valid))


def _subset(masks: Masks, valid: Tensor, generator: torch.Generator) -> Masks:
    keys = torch.rand(valid.shape, generator=generator, device=valid.device).masked_fill(~valid, 2.0)
    rank = keys.argsort(dim=-1).argsort(dim=-1)  # [B, E, K]: padded entries rank last
    return _keep(masks, rank < masks.context_counts().min())


def _keep(masks: Masks, kept: Tensor) -> Masks:
    """Keep the marked context entries [B, E, K], which must be valid, and pad the rest."""
    entries, valid = patches_of(kept, kept.shape[-1])
    context = masks.context.gather(-1, entries).masked_fill(~valid, 0)
    return Masks(context, valid, masks.target, masks.target_valid)


_BATCHINGS: dict[str, Callable[[Masks, Tensor, torch.Generator], Masks]] = {
    "pad": _pad,
    "subset": _subset,
    "prefix": _prefix,
}
assert set(_BATCHINGS) == set(get_args(ContextBatching))


def trim(masks: Masks) -> Masks:
    """Cut K and T to the largest count of the batch; validity becomes None where every entry is valid.

    Reads the counts on the host (one wait for the device), and shapes then change from batch to batch: for
    devices where that costs nothing, such as a CPU without compilation.
    """
    contexts, targets = masks.context_counts(), masks.target_counts()
    fewest_k, most_k, fewest_t, most_t = torch.stack(
        (contexts.min(), contexts.max(), targets.min(), targets.max())
    ).tolist()
    context_valid = None if masks.context_valid is None else masks.context_valid[..., :most_k]
    target_valid = None if masks.target_valid is None else masks.target_valid[..., :most_t]
    return Masks(
        masks.context[..., :most_k],
        None if fewest_k == most_k else context_valid,
        masks.target[..., :most_t],
        None if fewest_t == most_t else target_valid,
    )


def union_of_targets(masks: Masks, num_patches: int) -> Masks:
    """Replace the M target blocks by one: every target patch once, in raster order.

    The shape is fixed by the masker's: M = 1 and T = min(N, M * T). A joint predictor sequence takes these.

    Args:
        num_patches: N of the grid.
    """
    length = min(num_patches, masks.target.shape[1] * masks.target.shape[2])
    covered = coverage_of(masks.target, masks.target_valid, num_patches).any(dim=1, keepdim=True)  # [B, 1, N]
    target, target_valid = patches_of(covered, length)
    return Masks(masks.context, masks.context_valid, target, target_valid)
