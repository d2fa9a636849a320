"""SIGTERM, a closed terminal and Ctrl-C as requests: a run stops between two steps, with a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_STOPPING = (signal.SIGINT, *_ENDING)


class StopRequested(KeyboardInterrupt):
    """The run was asked to stop, by Ctrl-C, by SIGTERM or by SIGHUP (its terminal has closed).

    Attributes:
        signal: which of these.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)

    def __reduce__(self) -> tuple[type[StopRequested], tuple[int]]:
        return StopRequested, (self.signal,)


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP end the process by SystemExit with their exit code (143, 129), so that it cleans up.

    For commands, or their parts, that have no `StopSignals` of their own. Signals that were ignored stay ignored.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    installed = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in installed:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in installed.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    for each in _ENDING:  # a second one must not disturb the cleaning up
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGHUP into `StopRequested`: at once, or where the code says that it may be stopped.

    A context manager. Handlers of a process belong to its main thread: in another one nothing is installed.
    A signal that was ignored before (by a shell's background job, by nohup) stays ignored. The first signal decides:
    a scheduler repeats SIGTERM, and a terminal that closes sends SIGHUP once by the kernel and once by the shell, so
    after the first one only Ctrl-C, by which a person says "now", has an effect.

    Attributes:
        received: the signal that is waiting for the end of a `held` block, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, a first signal waits in `received`; a second Ctrl-C is raised at once."""
        yield from self._while(held=True)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Within a `held` block: a signal is raised at once here, also one that is waiting."""
        self.raise_if_received()
        yield from self._while(held=False)

    def raise_if_received(self) -> None:
        """Raise the signal that is waiting, if there is one."""
        if self.received is not None:
            raise StopRequested(self.received)

    def _while(self, held: bool) -> Iterator[None]:
        before, self._held = self._held, held
        try:
            yield
        finally:
            self._held = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        if again and number != signal.SIGINT:
            return
        self.received = self.received or signal.Signals(number)
        if not self._held or again:
            raise StopRequested(number)
