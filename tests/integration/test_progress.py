"""A run tells its display what it does, step by step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jepa_lab.composition.start import start_run
from jepa_lab.training.progress import LoggedNumbers, ProgressDisplay, TrainingPosition
from tests.integration.pipelines import load_tiny


class Recorder(ProgressDisplay):
    """Writes down what it is told; steps by their number, and how many of them knew the time left."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.with_time_left: list[int] = []

    def phase(self, what: str) -> None:
        self.told.append(what)

    def pause(self, what: str) -> None:
        self.told.append(f"({what})")

    def step(self, position: TrainingPosition) -> None:
        self.told.append(str(position.step))
        assert (position.total, position.steps_per_epoch) == (10, 5)
        if position.seconds_left is not None:
            self.with_time_left.append(position.step)

    def logged(self, numbers: LoggedNumbers) -> None:
        self.told.append("logged")

    def message(self, text: str) -> None:
        self.told.append(text)


def test_the_display_is_told_every_step_whatever_is_logged_and_what_goes_on_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = Recorder()
    for module in ("data", "work"):
        monkeypatch.setattr(f"jepa_lab.composition.{module}.build_display", lambda started: display)
    often = ("training.checkpoint_every_steps=1000", "training.log_every_steps=1000", "training.epochs=2")
    start_run(load_tiny(tmp_path, *often), tmp_path / "runs", [])
    begin, end = display.told.index("preparing the model and the evaluation") + 1, display.told.index("0")
    banner = display.told[begin:end]
    del display.told[begin:end]
    assert max(map(len, banner)) <= 80
    words = " ".join(" ".join(banner).split())
    assert re.fullmatch(
        r"data digits, 8x8 pixels device cpu \(1 thread\), fp32 model encoder 16x1x2 \(width x depth x heads\), "
        r"3.39 k parameters; predictor 8x1x2, 1.18 k; 16 patches of 2x2 training 10 steps \(2 epochs of 5\), "
        r"batches of 24 run folder .*tiny-[0-9a-f]{8}-s0",
        words,
    )
    assert display.told == [
        "loading digits",
        "images: 120 training, 40 validation, 160 test",
        "preparing the model and the evaluation",
        "0", "evaluating the encoder before training", "first step",
        "1", "2", "3", "4", "5", "logged", "(evaluating)",
        "6", "7", "8", "9", "10", "logged", "(evaluating)",
        "monitoring the trained encoder",
        "probing trained encoder: logistic, knn",
        "probing random encoder: logistic, knn",
        "probing raw pixels: logistic, knn",
        "drawing figures",
    ]  # fmt: skip
    assert display.with_time_left == list(range(2, 11))
