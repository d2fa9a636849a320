"""What a person sees while a sweep runs: a line a slot and one for the sweep, or plain lines."""

from __future__ import annotations

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from jepa_lab.sweeps.watch import duration
from jepa_lab.tables.wrapping import shown, wrap

_PLAIN_SECONDS = 30.0
_PLAIN_LINES = 20


@dataclass(frozen=True)
class SweepState:
    """How far a sweep is.

    Attributes:
        places: what is going on in each, such as a slot or a job: "arm seed 3: epoch 1.0/20 ...".
        total: None where a budget of hours decides it.
        seconds_left: of the whole sweep, estimated from the trials that finished; None before the first.
    """

    places: Mapping[str, str]
    finished: int
    failed: int
    total: int | None
    seconds_left: float | None

    def sentence(self) -> str:
        """The line for the sweep."""
        of_total = "" if self.total is None else f" of {self.total}"
        parts = [f"{self.finished}{of_total} trials finished"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.seconds_left is not None and self.finished + self.failed != self.total:
            parts.append(f"about {duration(self.seconds_left)} left")
        return ", ".join(parts)


class SweepDisplay(ABC):
    """Shows the state of a sweep; a context manager."""

    @abstractmethod
    def update(self, state: SweepState) -> None:
        """Show how far it is now."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Print a line that stays."""

    def __enter__(self) -> SweepDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the display; errors pass through."""
        return None


class LiveDisplay(SweepDisplay):
    """Lines that are redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def update(self, state: SweepState) -> None:
        lines = []
        for place, text in _first_places(state, self._most_lines()):
            head = f"{place}  "
            wrapped = wrap(shown(text), self._live.console.width - len(head))
            lines += [(" " * len(head) if number else head) + line for number, line in enumerate(wrapped)]
        self._live.update(Group(*map(Text, lines), Text(state.sentence(), "bold")))

    def _most_lines(self) -> int:
        """That leave room for the line of the sweep."""
        return max(1, self._live.console.height - 4)

    def message(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> SweepDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


class PlainDisplay(SweepDisplay):
    """The slots and the sweep every half minute."""

    def __init__(self) -> None:
        self._printed = time.monotonic()

    def update(self, state: SweepState) -> None:
        if time.monotonic() - self._printed < _PLAIN_SECONDS:
            return
        self._printed = time.monotonic()
        for place, text in _first_places(state, _PLAIN_LINES):
            self.message(f"{place}  {text}")
        self.message(state.sentence())

    def message(self, text: str) -> None:
        print(text, flush=True)


def _first_places(state: SweepState, most: int) -> list[tuple[str, str]]:
    """The places by name, numbers in their order; where there are too many for a screen, how many more there are."""
    places = sorted(state.places.items(), key=lambda item: _natural(item[0]))
    if len(places) <= most:
        return places
    return [*places[: most - 1], ("...", f"and {len(places) - most + 1} more at work")]


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def build_sweep_display() -> SweepDisplay:
    """The display that suits the standard output."""
    console = Console()
    return LiveDisplay(console) if sys.stdout.isatty() and console.is_interactive else PlainDisplay()
