"""How fast steps are taken, and how much time is left."""

from __future__ import annotations

from collections import deque

_WINDOW = 1000
"""Steps that the pace is the mean of: enough to smooth out a host that runs ahead of its device."""


class Pace:
    """Estimates the time left from steps that have been taken, on the host alone.

    The first step that this process takes is left out: it compiles, allocates and fills caches. Evaluations are timed
    by themselves, and those to come are added.

    Args:
        total_steps: of the whole run. evaluate_every_steps: steps between two evaluations; the last step is evaluated.
    """

    def __init__(self, total_steps: int, evaluate_every_steps: int) -> None:
        self._total_steps, self._every = total_steps, evaluate_every_steps
        self._steps: deque[tuple[int, float]] = deque(maxlen=_WINDOW + 1)
        self._evaluation_seconds = 0.0

    def stepped(self, step: int, training_seconds: float) -> None:
        """A step was taken.

        Args:
            training_seconds: how long steps have taken so far, without evaluations and checkpoints.
        """
        self._steps.append((step, training_seconds))

    def evaluated(self, seconds: float) -> None:
        """An evaluation took so long."""
        self._evaluation_seconds = seconds

    def seconds_left(self) -> float | None:
        """Until the last step, with the evaluations after this one; None before the second step of this process."""
        if len(self._steps) < 2:
            return None
        (first, began), (step, now) = self._steps[0], self._steps[-1]
        per_step = (now - began) / (step - first)
        return per_step * (self._total_steps - step) + self._evaluation_seconds * self._evaluations_after(step)

    def _evaluations_after(self, step: int) -> int:
        regular = self._total_steps // self._every - step // self._every
        of_last_step_alone = self._total_steps % self._every > 0 and step < self._total_steps
        return regular + of_last_step_alone
