"""What a person sees while a run trains: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_SECONDS = 10.0


class ProgressDisplay(ABC):
    """Shows how far training is; a context manager."""

    @abstractmethod
    def update(self, step: int, epoch: float, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Show the numbers of a logged step."""

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
    """A live bar with loss, learning rate, images a second and time left."""

    def __init__(self, total_steps: int, first_step: int, console: Console) -> None:
        self._progress = Progress(
            TextColumn("pretraining"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  lr {task.fields[lr]}  {task.fields[speed]} images/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(
            "pretraining", total=total_steps, completed=first_step, loss="-", lr="-", speed="-"
        )

    def update(self, step: int, epoch: float, loss: float, learning_rate: float, images_per_second: float) -> None:
        self._progress.update(
            self._task,
            completed=step,
            loss=f"{loss:.4f}",
            lr=f"{learning_rate:.2e}",
            speed=f"{images_per_second:,.0f}",
        )

    def message(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


class PlainDisplay(ProgressDisplay):
    """A line every ten seconds, and one for the last step."""

    def __init__(self, total_steps: int, first_step: int) -> None:
        self._total = total_steps
        self._first_step = first_step
        self._started = self._printed = time.monotonic()

    def update(self, step: int, epoch: float, loss: float, learning_rate: float, images_per_second: float) -> None:
        now = time.monotonic()
        if now - self._printed < _PLAIN_SECONDS and step < self._total:
            return
        self._printed = now
        left = (now - self._started) / max(1, step - self._first_step) * (self._total - step)
        self.message(
            f"step {step}/{self._total}  epoch {epoch:.1f}  loss {loss:.4f}  lr {learning_rate:.2e}  "
            f"{images_per_second:,.0f} images/s  {left:.0f} s left"
        )

    def message(self, text: str) -> None:
        print(text, flush=True)


def build_display(total_steps: int, first_step: int) -> ProgressDisplay:
    """The display that suits the standard output."""
    if sys.stdout.isatty():
        return BarDisplay(total_steps, first_step, Console())
    return PlainDisplay(total_steps, first_step)
