"""Time spent training."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds of training, without evaluations and checkpoints, over all parts of a run that was resumed.

    Args:
        seconds: counted before.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._started: float | None = None

    def start(self) -> None:
        """Count from now on."""
        self._started = time.monotonic()

    def stop(self) -> None:
        """Stop counting."""
        self._seconds, self._started = self.seconds(), None

    def seconds(self) -> float:
        """Counted so far."""
        return self._seconds + (0.0 if self._started is None else time.monotonic() - self._started)
