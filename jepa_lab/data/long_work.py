"""Says how far a long look at many files is; says nothing about a short one."""

from __future__ import annotations

import time

SECONDS_BETWEEN = 10.0


class LongWork:
    """Counts images, and prints a line every ten seconds.

    Args:
        what: the work in words, such as "decoding". total: images in all.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._started = self._told = time.monotonic()

    def add(self, count: int) -> None:
        """More images are done."""
        self.done += count
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN:
            return
        self._told = now
        left = (now - self._started) / self.done * (self.total - self.done)
        print(f"{self.what}: {self.done:,} of {self.total:,} images, {left:,.0f} s left", flush=True)
