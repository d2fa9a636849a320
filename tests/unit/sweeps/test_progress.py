"""What a person sees while a sweep runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from jepa_lab.sweeps import progress
from jepa_lab.sweeps.progress import LiveDisplay, PlainDisplay, SweepState
from jepa_lab.sweeps.watch import TrialWatch, duration

ROWS = """\
{"format_version": 1, "step": 2, "epoch": 1.0, "time": 1.0, "metrics": {"train/loss": 0.5}}
{"format_version": 1, "step": 4, "epoch": 2.0, "time": 2.0, "metrics": {"probe/online_validation_accuracy": 0.25}}
"""
STATE = SweepState({"slot 1": "b seed 0: starting", "slot 0": "a seed 0: epoch 1.0/4"}, 3, 1, 8, 100.0)


def test_a_trial_shows_epoch_loss_online_probe_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = TrialWatch(tmp_path / "metrics.jsonl", epochs=4)
    assert watch.sentence() == "epoch 0.0/4"
    clock = [10.0]
    monkeypatch.setattr("jepa_lab.sweeps.watch.time.monotonic", lambda: clock[0])
    first, second = ROWS.splitlines(keepends=True)
    watch.path.write_text(first)
    watch.update()
    assert watch.seconds_left() is None, "a speed takes two looks"
    watch.path.write_text(first + second)
    watch.update()
    clock[0] = 16.0
    assert watch.sentence() == "epoch 2.0/4  loss 0.5000  online probe 25.0%  12 s left"


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (STATE, "3 of 8 trials finished, 1 failed, about 1 min 40 s left"),
        (SweepState({}, 0, 0, 8, None), "0 of 8 trials finished"),
        (SweepState({}, 8, 0, 8, 0.0), "8 of 8 trials finished"),
        (SweepState({}, 3, 0, None, None), "3 trials finished"),
    ],
)
def test_the_sweep_has_a_line_of_its_own(state: SweepState, sentence: str) -> None:
    assert state.sentence() == sentence


def test_plain_lines_are_one_a_slot_and_one_for_the_sweep_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    display = PlainDisplay()
    display.update(STATE)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    display.update(STATE)
    assert capsys.readouterr().out.splitlines() == [
        "slot 0  a seed 0: epoch 1.0/4", "slot 1  b seed 0: starting", STATE.sentence(),
    ]  # fmt: skip


def test_a_terminal_shows_the_same_lines_in_place() -> None:
    output = io.StringIO()
    with LiveDisplay(Console(file=output, force_terminal=True, width=60)) as display:
        display.update(STATE)
        display.message("a seed 0 [failed]")
    text = output.getvalue()
    assert "slot 0  a seed 0: epoch 1.0/4" in text
    assert "3 of 8 trials finished" in text
    assert "a seed 0 [failed]" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90061, "25 h 1 min")],
)
def test_a_time_is_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_narrow_terminal_shows_the_time_that_a_trial_has_left() -> None:
    output = io.StringIO()
    text = "reference masks, prefix seed 0: epoch 12.0/100  loss 0.1234  online probe 25.0%  1 min 12 s left"
    with LiveDisplay(Console(file=output, force_terminal=True, width=60)) as display:
        display.update(SweepState({"slot 0": text}, 0, 0, 8, None))
    assert "1 min 12 s left" in " ".join(output.getvalue().split())
    assert "…" not in output.getvalue()
