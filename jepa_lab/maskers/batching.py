"""What happens to contexts that differ in their number of patches, and other ways to reshape masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches, patches_of

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
    if masks.context.valid is None:
        return masks  # every context has the same number of patches
    return Masks(_BATCHINGS[batching](masks.context, generator), masks.target)


def _pad(context: Patches, generator: torch.Generator) -> Patches:
    return context


def _prefix(context: Patches, generator: torch.Generator) -> Patches:
    kept = torch.arange(context.shape[-1], device=context.device) < context.counts().min()
    return _keep(context, kept.expand(context.shape))


def _subset(context: Patches, generator: torch.Generator) -> Patches:
    keys = torch.rand(context.shape, generator=generator, device=context.device).masked_fill(~context.validity(), 2.0)
    rank = keys.argsort(dim=-1).argsort(dim=-1)  # [B, E, K]: padded entries rank last
    return _keep(context, rank < context.counts().min())


def _keep(context: Patches, kept: Tensor) -> Patches:
    """Keep the marked entries [B, E, K], which must be valid, and pad the rest."""
    entries = patches_of(kept, kept.shape[-1])
    return Patches(context.indices.gather(-1, entries.indices).masked_fill(~entries.validity(), 0), entries.valid)


_BATCHINGS: dict[str, Callable[[Patches, torch.Generator], Patches]] = {
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
    contexts, targets = masks.context.counts(), masks.target.counts()
    fewest_k, most_k, fewest_t, most_t = torch.stack(
        (contexts.min(), contexts.max(), targets.min(), targets.max())
    ).tolist()
    return Masks(_trim(masks.context, fewest_k, most_k), _trim(masks.target, fewest_t, most_t))


def _trim(patches: Patches, fewest: int, most: int) -> Patches:
    short = patches.first(most)
    return Patches(short.indices) if fewest == most else short


def union_of_targets(masks: Masks, num_patches: int) -> Masks:
    """Replace the M target blocks by one: every target patch once, in raster order.

    The shape is fixed by the masker's: M = 1 and T = min(N, M * T). A joint predictor sequence takes these.

    Args:
        num_patches: N of the grid.
    """
    length = min(num_patches, masks.target.shape[1] * masks.target.shape[2])
    covered = masks.target.coverage(num_patches).any(dim=1, keepdim=True)  # [B, 1, N]
    return Masks(masks.context, patches_of(covered, length))
