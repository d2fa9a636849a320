"""Randomness is an argument: every use has its own generator, derived from the run's seed and its purpose."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose ("masks", "order", ...); purposes do not disturb each other."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits: every generator takes them


def build_generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` for one purpose of a run."""
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose))
