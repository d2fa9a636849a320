"""Generators of tests, and what must not change."""

from __future__ import annotations

import random

import numpy as np
import torch


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of the CPU."""
    return torch.Generator().manual_seed(seed)


def global_generators() -> tuple[bytes, bytes, str]:
    """The state of every global random generator, to show that nothing touched it."""
    numpy_state = np.random.get_state(legacy=False)["state"]["key"].tobytes()
    return torch.get_rng_state().numpy().tobytes(), numpy_state, repr(random.getstate())
