"""The standard input as a sign of life: a worker ends when whoever started it is gone."""

from __future__ import annotations

import os
import signal
import threading
import time

_PATIENCE_SECONDS = 120.0


class Lifeline:
    """Watches the standard input, a pipe whose other end an engine's process holds.

    Attributes:
        is_cut: whether it has closed. What the worker does then is for nobody, who would take a reply for a sign that
            all is well.
    """

    def __init__(self) -> None:
        self.is_cut = False

    def hold(self) -> None:
        """When the standard input closes, ask this process to save its state and to stop; end it if it does not."""
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock a thread must not hold when Python ends
            pass
        self.is_cut = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE_SECONDS)
        os._exit(128 + signal.SIGTERM)
