"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_PLAIN_SECONDS = 10.0


@dataclass(frozen=True)
class LoggedNumbers:
    """The numbers of the last step that was logged."""

    loss: float
    learning_rate: float
    images_per_second: float

    def sentence(self) -> str:
        """Loss, learning rate and speed."""
        return f"loss {self.loss:.4f}  lr {self.learning_rate:.2e}  {self.images_per_second:,.0f} images/s"


@dataclass(frozen=True)
class TrainingPosition:
    """Where training is.

    Attributes:
        total: steps of the whole run.
        seconds_left: None where nothing can be said yet.
    """

    step: int
    total: int
    steps_per_epoch: int
    seconds_left: float | None = None

    @property
    def epoch(self) -> float:
        """Passes over the images so far."""
        return self.step / self.steps_per_epoch


class ProgressDisplay(ABC):
    """Shows what a run is doing; a context manager. Nothing here waits for the device."""

    @abstractmethod
    def phase(self, what: str) -> None:
        """A part of the run without steps begins: loading, compiling, probing. It lasts until the next step."""

    @abstractmethod
    def pause(self, what: str) -> None:
        """Training pauses, as for an evaluation, until the next step."""

    @abstractmethod
    def step(self, position: TrainingPosition) -> None:
        """A step was taken, or, before the first one, where training begins. Called at every step, so it is cheap."""

    @abstractmethod
    def logged(self, numbers: LoggedNumbers) -> None:
        """The step that `step` was last told has been logged."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Print a line that stays."""

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the display; errors pass through."""
        return None


class BarDisplay(ProgressDisplay):
    """A live bar with elapsed time and time left, over a line with the last logged numbers or what is going on.

    The bar is drawn by a thread of its own, four times per second; training only leaves numbers for it.
    """

    def __init__(self, console: Console, started: float) -> None:
        self._started, self._busy_since = started, time.monotonic()
        self._busy: str | None = None
        self._pauses = False
        self._position: TrainingPosition | None = None
        self._numbers: LoggedNumbers | None = None
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render, transient=True)

    def phase(self, what: str) -> None:
        self._busy, self._busy_since, self._pauses = what, time.monotonic(), False

    def pause(self, what: str) -> None:
        self._busy, self._busy_since, self._pauses = what, time.monotonic(), True

    def step(self, position: TrainingPosition) -> None:
        self._position, self._busy = position, None

    def logged(self, numbers: LoggedNumbers) -> None:
        self._numbers = numbers

    def message(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> ProgressDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._busy = None
        self._live.transient = self._position is None  # how far training came stays on the screen
        self._live.stop()

    def _render(self) -> RenderableType:
        position, now = self._position, time.monotonic()
        busy = [] if self._busy is None else [f"{self._busy}  {clock(now - self._busy_since)}"]
        if position is None:
            return self._line(*busy)
        bar = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None, None):
            bar.add_column(ratio=ratio, no_wrap=True)
        left = None if position.step == position.total else position.seconds_left
        bar.add_row(
            "pretraining",
            ProgressBar(position.total, position.step),
            f"{position.step}/{position.total}",
            f"{clock(now - self._started)} elapsed",
            "" if left is None else f"{clock(left)} left",
        )
        if busy and not self._pauses:
            return Group(bar, self._line(*busy))
        numbers = [] if self._numbers is None else [self._numbers.sentence()]
        return Group(bar, self._line(f"epoch {position.epoch:.1f}", *numbers, *busy))

    @staticmethod
    def _line(*parts: str) -> Text:
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")


class PlainDisplay(ProgressDisplay):
    """A line for each phase, one every ten seconds while steps are taken, and one for the last step."""

    def __init__(self) -> None:
        self._printed = time.monotonic()
        self._position: TrainingPosition | None = None
        self._numbers: LoggedNumbers | None = None

    def phase(self, what: str) -> None:
        self._printed = time.monotonic()
        self.message(what)

    def pause(self, what: str) -> None:
        pass

    def step(self, position: TrainingPosition) -> None:
        begins, self._position = self._position is None, position
        if not begins and time.monotonic() - self._printed >= _PLAIN_SECONDS:
            self._print_position(position)

    def logged(self, numbers: LoggedNumbers) -> None:
        self._numbers = numbers
        if self._position is not None and self._position.step == self._position.total:
            self._print_position(self._position)

    def message(self, text: str) -> None:
        print(text, flush=True)

    def _print_position(self, position: TrainingPosition) -> None:
        self._printed = time.monotonic()
        parts = [f"step {position.step}/{position.total}", f"epoch {position.epoch:.1f}"]
        if self._numbers is not None:
            parts.append(self._numbers.sentence())
        if position.seconds_left is not None and position.step < position.total:
            parts.append(f"{clock(position.seconds_left)} left")
        self.message("  ".join(parts))


def clock(seconds: float) -> str:
    """A time as a clock shows it, whose width hardly changes: 0:42, 3:05, 2:10:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def build_display(started: float) -> ProgressDisplay:
    """The display that suits the standard output.

    Args:
        started: time.monotonic() when the command began; the elapsed time counts from there.
    """
    console = Console()
    # Not by the console alone, which FORCE_COLOR makes take a file for a terminal.
    return BarDisplay(console, started) if sys.stdout.isatty() and console.is_interactive else PlainDisplay()
