"""Draws from a finite distribution that is known exactly.

Block sizes and patch counts are roundings of continuous draws, so only a few values occur. Their exact
probabilities give the largest value that can occur (the fixed shape of the masks), say beforehand which
settings are impossible, and let a value be drawn on the device with one table look-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

NEGLIGIBLE = 1e-9
"""Outcomes less probable than this are rounding errors of an interval's end and are left out."""


class Discrete:
    """A distribution over tuples of integers.

    Args:
        probabilities: probability of each outcome; at least one outcome.

    Attributes:
        probabilities: the outcomes that occur, in ascending order, with probabilities that sum to 1.
    """

    def __init__(self, probabilities: dict[tuple[int, ...], float]) -> None:
        kept = {outcome: p for outcome, p in sorted(probabilities.items()) if p > NEGLIGIBLE}
        total = sum(kept.values())
        self.probabilities = {outcome: p / total for outcome, p in kept.items()}
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def outcomes(self) -> list[tuple[int, ...]]:
        """The tuples that occur, in ascending order."""
        return list(self.probabilities)

    def probability(self, event: Callable[[tuple[int, ...]], bool]) -> float:
        """Probability that an outcome satisfies `event`."""
        return sum(p for outcome, p in self.probabilities.items() if event(outcome))

    def given(self, event: Callable[[tuple[int, ...]], bool]) -> Discrete:
        """The distribution of redrawing until `event` holds; some outcome must satisfy it."""
        return Discrete({outcome: p for outcome, p in self.probabilities.items() if event(outcome)})

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Independent draws on the generator's device.

        Returns:
            One int64 tensor of the given shape for each component of an outcome.
        """
        edges, columns = self._on(generator.device)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        return tuple(columns[:, torch.bucketize(uniform, edges, right=True)])

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cumulative probabilities without the last [S - 1] and outcomes [V, S]; kept, as copying stalls."""
        if device not in self._tables:
            probabilities = torch.tensor(list(self.probabilities.values()), dtype=torch.float64)
            edges = probabilities.cumsum(0)[:-1].to(torch.float32)
            self._tables[device] = (edges.to(device), torch.tensor(self.outcomes).T.contiguous().to(device))
        return self._tables[device]


def floor_probabilities(low: float, high: float) -> dict[int, float]:
    """Distribution of int(x) for x uniform between `low` and `high` (0 <= low <= high)."""
    if low == high:
        return {int(low): 1.0}
    return {
        k: (min(high, k + 1) - max(low, k)) / (high - low)
        for k in range(math.floor(low), math.floor(high) + 1)
        if min(high, k + 1) > max(low, k)
    }
