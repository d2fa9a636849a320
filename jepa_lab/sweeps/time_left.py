"""How long a sweep still takes, from the trials that have finished."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class TimeLeft:
    """Estimates from the mean time of a trial.

    The first trial of a worker waits for imports, which the others do not; it counts only while there is no other.

    Attributes:
        first, others: seconds that finished trials took: the first one of each worker, without the worker's start,
            and those after it.
    """

    first: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def seconds(self, elapsed: Sequence[float], waiting: int, slots: int) -> float | None:
        """Until the last trial has finished; None before a trial has.

        Args:
            elapsed: seconds that each running trial has run.
            waiting: trials that have not begun. slots: how many run at once.
        """
        known = self.others or self.first
        if not known:
            return None
        mean = sum(known) / len(known)
        ends = [max(0.0, mean - each) for each in elapsed]
        ends += [0.0] * (slots - len(ends))
        # Each begins on the slot that is free first. No slot is a trial behind another one, so that they take turns.
        rounds, rest = divmod(waiting, len(ends))
        ends = [each + rounds * mean for each in ends]
        heapq.heapify(ends)
        for _ in range(rest):
            heapq.heapreplace(ends, ends[0] + mean)
        return max(ends)
