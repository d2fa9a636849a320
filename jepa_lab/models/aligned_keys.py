"""Attention on a CPU takes keys a vector at a time: a few more keys, which nobody attends to, make whole vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

VECTOR = 16
"""Single-precision numbers in the widest vector (AVX-512)."""
_WORTH_FILLING = 12
"""A vector with this many keys takes less time when it is filled up; the only one already with `_WORTH_FILLING_ALONE`.

PyTorch computes the exponentials of what is left over one by one. On one thread, with gradients, attention to 15 keys
took 1.5 times as long as to 16, and to 31 keys 1.3 times as long as to 32; to 24 keys it took less than to 32.
"""
_WORTH_FILLING_ALONE = 8


def aligned(num_keys: int) -> int:
    """How many keys attention takes instead, so that it takes less time on a CPU."""
    left_over = num_keys % VECTOR
    pays = left_over >= (_WORTH_FILLING if num_keys > VECTOR else _WORTH_FILLING_ALONE)
    return num_keys - left_over + VECTOR if pays else num_keys


def align_keys(key: Tensor, value: Tensor, attend: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys, values and mask for the same attention, to rounding, in less time on a CPU; as they are elsewhere.

    Args:
        key, value: [B, K, H, head_dim]. attend: [B, 1, 1, K] bool, False at padded keys; None where all count.
    Returns:
        The same three with K' keys instead of K.
    """
    num_keys = key.shape[1]
    more = aligned(num_keys) - num_keys
    if not more or key.device.type != "cpu" or torch.compiler.is_compiling():
        return key, value, attend
    if attend is None:
        attend = torch.ones(1, 1, 1, num_keys, dtype=torch.bool)
    return F.pad(key, (0, 0, 0, 0, 0, more)), F.pad(value, (0, 0, 0, 0, 0, more)), F.pad(attend, (0, more))
