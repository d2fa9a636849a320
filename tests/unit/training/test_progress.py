"""What a person sees while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jepa_lab.training import progress
from jepa_lab.training.progress import BarDisplay, LoggedNumbers, PlainDisplay, TrainingPosition, build_display, clock

NUMBERS = LoggedNumbers(loss=0.25, learning_rate=1e-3, images_per_second=1234.5)


class Clock:
    """A clock that a test sets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        patch.setattr("jepa_lab.training.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def at(step: int, left: float | None = None) -> TrainingPosition:
    return TrainingPosition(step, total=100, steps_per_epoch=10, seconds_left=left)


class Screen:
    """A bar that is drawn when it is asked for, on a terminal of a given width."""

    def __init__(self, columns: int = 80) -> None:
        self.display = BarDisplay(Console(width=columns, color_system=None, file=io.StringIO()), started=0.0)

    def lines(self) -> list[str]:
        console = Console(width=self.display._live.console.width, color_system=None, file=io.StringIO())
        with console.capture() as capture:
            console.print(self.display._live.get_renderable())
        return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_before_the_first_step_the_terminal_says_what_is_going_on_and_for_how_long(now: Clock) -> None:
    screen = Screen()
    screen.display.phase("loading digits")
    now.now = 5.0
    assert screen.lines() == ["loading digits 0:05"]
    screen.display.step(at(0))
    screen.display.phase("first step")
    now.now = 70.0
    bar, below = screen.lines()
    assert bar.endswith("0/100 1:10 elapsed")
    assert below == "first step 1:05"


def test_the_bar_moves_at_every_step_also_where_none_was_logged(now: Clock) -> None:
    screen = Screen()
    screen.display.step(at(0))
    screen.display.phase("first step")
    for step, left in ((1, None), (2, 98.0), (3, 97.0)):
        now.now = float(step)
        screen.display.step(at(step, left))
        bar, below = screen.lines()
        assert f"{step}/100 0:0{step} elapsed" in bar
        assert below == f"epoch 0.{step}"
        assert bar.endswith("elapsed" if left is None else f"{clock(left)} left")


@pytest.mark.parametrize("columns", [80, 120])
def test_the_last_logged_numbers_stay_while_an_evaluation_pauses_training(columns: int, now: Clock) -> None:
    screen = Screen(columns)
    screen.display.step(at(50, 100_000.0))
    screen.display.logged(NUMBERS)
    screen.display.pause("evaluating")
    now.now = 100_009.0
    bar, below = screen.lines()
    assert bar.endswith("50/100 27:46:49 elapsed 27:46:40 left")
    assert below == "epoch 5.0 loss 0.2500 lr 1.00e-03 1,234 images/s evaluating 27:46:49"
    screen.display.step(at(51, 1.0))
    assert screen.lines()[1] == "epoch 5.1 loss 0.2500 lr 1.00e-03 1,234 images/s"


def test_how_far_training_came_stays_on_the_terminal_and_a_phase_before_it_does_not() -> None:
    output = io.StringIO()
    with BarDisplay(Console(file=output, force_terminal=True, width=80, color_system=None), 0.0) as display:
        display.phase("loading [digits]")
    assert output.getvalue().endswith("\x1b[2K")  # the line is erased
    output.truncate(0)
    with BarDisplay(Console(file=output, force_terminal=True, width=80, color_system=None), 0.0) as display:
        display.step(at(7))
        display.message("a warning [of some kind]")
        display.phase("probing")
    assert "a warning [of some kind]" in output.getvalue()
    assert "7/100" in output.getvalue().split("probing")[-1]


def test_plain_lines_come_every_ten_seconds_and_for_the_last_step(
    now: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    display = PlainDisplay()
    display.phase("loading digits")
    display.step(at(0))
    display.phase("first step")
    for step in range(1, 101):
        now.now = 4.0 * step
        display.step(at(step, 400 - now.now))
        if step % 30 == 0 or step == 100:
            display.pause("evaluating")
            display.logged(NUMBERS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["loading digits", "first step", "step 3/100  epoch 0.3  6:28 left"]
    assert lines[-1] == "step 100/100  epoch 10.0  loss 0.2500  lr 1.00e-03  1,234 images/s"
    assert len(lines) == 2 + 33 + 1  # every third step, and the last


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (62, "1:02"), (3599, "59:59"), (3600, "1:00:00")]
)
def test_times_read_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_file_gets_plain_lines_also_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress.sys, "stdout", io.StringIO())
    assert isinstance(build_display(0.0), PlainDisplay)
