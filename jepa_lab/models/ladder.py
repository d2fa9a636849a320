"""Sizes of the buffers of tokens on a device whose host must not wait: a few fixed ones, of which the last holds any.

How many tokens a batch has is random. Where images are drawn independently their sum hardly varies, and a size a little
above its mean holds practically every batch. Where all images of a batch share their counts (as under `prefix`) the sum
varies much, and sizes in steps of `STEP` share the batches out. Nothing is ever dropped: a batch that is larger than a
size takes the next one, and the last size has room for all that the masker can draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.models.packing import PackedSizes

STEP = 1.12
"""Ratio of two sizes that follow each other, where several share the batches out."""
_SPREADS = (4.5, 8.0)
"""Standard deviations between the mean of a sum and the sizes that hold it: a normal sum exceeds the first once in
300,000 batches, and the second once in 1e15."""
_ROWS = 64
"""Sizes are multiples of this many rows, as products of matrices are computed in tiles."""
_SAMPLED_BATCHES = 24


@dataclass(frozen=True)
class Ladder:
    """Sizes of all buffers, ascending.

    Attributes:
        rungs: of each rung, the sizes of every level.
    """

    rungs: tuple[tuple[PackedSizes, ...], ...]

    @property
    def varies(self) -> bool:
        """Whether batches of several sizes are common: there are more rungs than a sum that hardly varies needs."""
        return len(self.rungs) > len(_SPREADS) + 1

    def rung(self, needed: Sequence[int]) -> int:
        """The lowest rung whose buffers hold what is needed.

        Args:
            needed: rows of the buffers of every level, one after the other, as `needed_rows` has them.
        """
        for number, sizes in enumerate(self.rungs):
            if all(need <= size for need, size in zip(needed, _flat(sizes), strict=True)):
                return number
        raise AssertionError(f"the last rung {self.rungs[-1]} holds any masks, and not {list(needed)}")


Levels = Callable[[Masks], Sequence[Masks]]
"""The masks of every level, of those of the patches."""


def needed_rows(masks: Masks, levels: Levels, parts: Sequence[slice]) -> Tensor:
    """Rows that the buffers of every level need, [levels * 3] int64 on the masks' device.

    Args:
        parts: images that are computed together; the buffers hold the largest part.
    """
    of_parts = [
        torch.stack([size for level in levels(masks[part]) for size in PackedSizes.of(level)]) for part in parts
    ]
    return torch.stack(of_parts).amax(dim=0)


def build_ladder(draw: Callable[[torch.Generator], Masks], levels: Levels, parts: Sequence[slice]) -> Ladder:
    """The sizes for a masker, from a sample of its batches; the same for every seed of a run.

    Args:
        draw: masks of a batch, of fixed shapes, on the generator's device.
        levels, parts: as for `needed_rows`.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(generator) for _ in range(_SAMPLED_BATCHES)]
    sample = torch.stack([needed_rows(masks, levels, parts) for masks in drawn]).double()  # [batches, levels * 3]
    full = [size for level in levels(drawn[0][parts[0]]) for size in _largest(level)]
    mean, deviation = sample.mean(dim=0), sample.std(dim=0)
    patches = slice(0, 3)  # coarser levels have few cells: how much their numbers vary costs little
    holding = [mean + spread * deviation for spread in _SPREADS]
    if max(holding[0][patches] / mean[patches].clamp(min=1)) <= STEP:
        rungs = [sizes.tolist() for sizes in holding]
    else:
        least = sample.amin(dim=0).clamp(min=1).tolist()
        ranges = list(zip(least, full, strict=True))
        count = max(math.ceil(math.log(most / low, STEP)) for low, most in ranges[patches])
        rungs = [[low * (most / low) ** (at / count) for low, most in ranges] for at in range(count)]
    sizes = [[min(_rounded(size), most) for size, most in zip(rung, full, strict=True)] for rung in (*rungs, full)]
    return Ladder(tuple(_by_level(rung) for rung in dict.fromkeys(map(tuple, sizes))))


def _largest(masks: Masks) -> tuple[int, int, int]:
    """Rows of the buffers of masks without padding, whatever their validity."""
    (batch, views, context), (_, blocks, target) = masks.context.shape, masks.target.shape
    pairs = batch * views * blocks
    return batch * views * context, pairs * (context + target), pairs * target


def _rounded(size: float) -> int:
    return max(1, math.ceil(size / _ROWS)) * _ROWS  # a level may have had no target at all in the sample


def _flat(sizes: Sequence[PackedSizes]) -> list[int]:
    return [rows for level in sizes for rows in (level.context, level.pairs, level.targets)]


def _by_level(rows: Sequence[int]) -> tuple[PackedSizes, ...]:
    return tuple(PackedSizes(*rows[at : at + 3]) for at in range(0, len(rows), 3))
