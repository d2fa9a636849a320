"""Telling torch.compile that the buffers of tokens come in several sizes, so that it compiles once for all of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.models.packing import FixedSizes, Packing
from jepa_lab.models.sequences import VariableLengths


@dataclass(frozen=True)
class VaryingSizes(FixedSizes):
    """Packs into buffers of fixed sizes, for a compiled model that will be given other sizes too.

    Otherwise the compiler takes the first sizes for constants, and compiles again when it meets others.
    """

    def __call__(self, masks: Masks, num_patches: int, level: int = 0) -> Packing:
        """See `Packer`."""
        packing, sizes = super().__call__(masks, num_patches, level), self.of_levels[level]
        _mark(packing, {sizes.context, sizes.pairs, sizes.targets})
        return packing


def _mark(packed: object, lengths: Collection[int]) -> None:
    if isinstance(packed, VariableLengths):  # what fills the buffer up are more sequences where there is more room
        torch._dynamo.maybe_mark_dynamic(packed.starts, 0)
    elif isinstance(packed, Tensor):
        for dim, length in enumerate(packed.shape):
            if length in lengths:
                torch._dynamo.maybe_mark_dynamic(packed, dim)
    elif is_dataclass(packed):
        for field in fields(packed):
            _mark(getattr(packed, field.name), lengths)
