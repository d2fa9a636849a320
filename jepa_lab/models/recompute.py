"""Activation checkpointing: forget what a block computed inside, and compute it again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def call_block(block: nn.Module, recompute: bool, *arguments: Any) -> Tensor:
    """What the block returns; with `recompute` only its arguments are kept for the gradients.

    Blocks draw nothing at random, so no state of a generator need be kept for the second time.
    Source: Chen et al. 2016, arXiv:1604.06174.
    """
    if recompute and torch.is_grad_enabled():
        output: Tensor = checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
    else:
        output = block(*arguments)
    return output
