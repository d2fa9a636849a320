"""Waiting for a database that does not answer: for how long, who is told, and what ends it sooner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from jepa_lab.errors import StorageUnavailable
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.sweeps.watch import duration

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
_REMINDER_SECONDS = 60.0
_LOOK_SECONDS = 0.1
"""Between two looks for a signal, which only leaves a note while a sweep holds it back."""


class Unanswered(Exception):
    """A database did not answer, or refused for now: the same call may succeed later. The text says why."""


class StoppedWhileWaiting(StopRequested):
    """A signal ended the waiting; what trains can still save its state."""


@dataclass(frozen=True)
class Patience:
    """What to do while a database is unreachable.

    Attributes:
        seconds: how long to wait per outage; 0 gives up at once.
        meanwhile: what continues while it is waited for, in words.
        remedy: what the user is told to do in the end.
        say: told when the waiting begins, every minute, and when it is over.
        stop: a signal in it ends the waiting.
    """

    seconds: float = 0.0
    meanwhile: str = ""
    remedy: str = "check the URL of --storage, start the database, then run the same command again"
    say: Callable[[str], None] = print
    stop: StopSignals | None = None

    def until_answered(self, name: str, call: Callable[[bool], Answer]) -> Answer:
        """The answer of a call, which is repeated for as long as it raises `Unanswered`.

        Args:
            name: of the database, without credentials.
            call: told whether an earlier attempt got no answer, and therefore may have been carried out.
        Raises:
            StorageUnavailable: it has had none for too long.
            StoppedWhileWaiting: a signal came first.
        """
        outage: _Outage | None = None
        while True:
            try:
                answer = call(outage is not None)
            except Unanswered as error:
                outage = _Outage(name, self) if outage is None else outage
                outage.wait(str(error))
            else:
                if outage is not None:
                    outage.end()
                return answer


IMPATIENT = Patience()
"""Of commands that read, and can simply be given again."""


class _Outage:
    """One time that a database is unreachable."""

    def __init__(self, name: str, patience: Patience) -> None:
        self._name, self._patience = name, patience
        self._began = time.monotonic()
        self._pause = _FIRST_PAUSE_SECONDS
        self._next_words = self._began
        self._limit = _words(patience.seconds)

    def wait(self, reason: str) -> None:
        """Wait for the next attempt.

        Raises:
            StorageUnavailable, StoppedWhileWaiting: there is to be none.
        """
        now, patience = time.monotonic(), self._patience
        left = self._began + patience.seconds - now
        if left <= 0:
            since = f"has been unreachable for {self._limit}" if patience.seconds else "is unreachable"
            raise StorageUnavailable(f"the storage {self._name} {since} ({reason})", remedy=patience.remedy)
        if now >= self._next_words:
            self._say_why(now, reason)
        self._sleep(now + min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _sleep(self, until: float) -> None:
        stop = self._patience.stop
        while time.monotonic() < until:
            if stop is not None and stop.received is not None:
                raise StoppedWhileWaiting(stop.received)
            time.sleep(_LOOK_SECONDS)

    def _say_why(self, now: float, reason: str) -> None:
        is_first, self._next_words = self._next_words == self._began, now + _REMINDER_SECONDS
        since = "is unreachable" if is_first else f"has been unreachable for {_words(now - self._began)}"
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + self._began + self._patience.seconds - now))
        self._say(f"{since} ({reason}){self._patience.meanwhile}; retrying until {until} ({self._limit})")

    def end(self) -> None:
        """It answers again."""
        self._say(f"answers again after {_words(max(1.0, time.monotonic() - self._began))}")

    def _say(self, what: str) -> None:
        logger.info("the storage %s %s", self._name, what)
        self._patience.say(f"the storage {self._name} {what}")


def _words(seconds: float) -> str:
    return duration(seconds).removesuffix(" 0 s")
