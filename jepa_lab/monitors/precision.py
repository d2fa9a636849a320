"""Monitors are computed in double precision."""

from __future__ import annotations

from torch import Tensor


def double(features: Tensor) -> Tensor:
    """In double precision (on the CPU, as not every accelerator has it): the spread can be tiny beside the mean."""
    return features.detach().cpu().double()
