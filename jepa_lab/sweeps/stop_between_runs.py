"""A SIGTERM that comes while no run is there to stop."""

from __future__ import annotations

import signal
from types import FrameType


class StopBetweenRuns:
    """Keeps a SIGTERM that comes while no run is there to stop: one task is then not begun."""

    def __init__(self) -> None:
        self._received = False

    def listen(self) -> None:
        """Between two runs."""
        signal.signal(signal.SIGTERM, self._handle)

    def release(self) -> bool:
        """Leave signals to a run, if it may begin."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        received, self._received = self._received, False
        return not received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = True
