"""`--dry-run`: the plan with an estimate of its time, and nothing written."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.status import Status

from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.sweeps import estimate
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, Engine, EngineChoice, choose_engine
from jepa_lab.sweeps.estimate import print_plan
from jepa_lab.sweeps.executors import local
from tests.unit.sweeps.ablations import plan_of

ARMS = "arms: {a: {}, b: {masker: random}}\nbaseline: a\n"
SEARCH = "search: {optimizer.learning_rate: {type: float, low: 1e-4, high: 1e-2}}\n"


def local_engine(slots: int) -> Engine:
    """The local executor for trials that may use a GPU."""
    return choose_engine(NO_ENGINE_SETTINGS, EngineChoice(slots=slots), on_gpu=True)


def printed(folder: Path, text: str, capsys: pytest.CaptureFixture[str], slots: int = 2) -> str:
    plan = plan_of(folder, text)
    before = sorted(folder.rglob("*"))
    print_plan(plan, local_engine(slots))
    assert sorted(folder.rglob("*")) == before
    return " ".join(capsys.readouterr().out.split())


def test_the_estimate_of_a_table_rests_on_measured_steps_of_every_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(tmp_path, ARMS + "seeds: [0, 1, 2]\n", capsys)
    assert "trials: 2 arms x 3 seeds (0, 1, 2) = 6" in text
    assert "masker=random" in text
    assert re.search(r"estimated training time: \d+ s for 6 trials in sequence, \d+ s on 2 slots", text), text
    assert "(from 4 timed steps per arm)" in text


def test_trials_that_share_a_gpu_are_promised_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(estimate, "training_seconds", lambda loaded: 60.0)
    text = printed(tmp_path, ARMS + "overrides: {training.device: auto}\n", capsys, slots=4)
    assert "in sequence, at best 2 min 30 s on 4 slots" in text, text


def test_the_estimate_for_one_slot_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(tmp_path, ARMS + "seeds: [0]\n", capsys, slots=1)
    assert re.search(r"estimated training time: \d+ s for 2 trials in sequence \(from", text), text


def test_the_plan_is_there_before_anything_is_timed_and_each_arm_is_named_when_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def timed(loaded: LoadedPipeline) -> float:
        seen.append(capsys.readouterr().out)
        return 1.0

    monkeypatch.setattr(estimate, "training_seconds", timed)
    print_plan(plan_of(tmp_path, ARMS), local_engine(2))
    first, second = seen
    assert "masker=random" in first
    assert first.endswith("timing arm 1 of 2: a\n")
    assert second == "timing arm 2 of 2: b\n"


def test_a_terminal_shows_in_place_which_arm_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(estimate, "Console", lambda **keywords: console)
    seen: list[str] = []
    monkeypatch.setattr(estimate, "training_seconds", lambda loaded: float(len(console.file.getvalue())))  # type: ignore[attr-defined]
    monkeypatch.setattr(Status, "update", lambda self, line: seen.append(line.plain))
    print_plan(plan_of(tmp_path, ARMS), local_engine(2))
    assert seen == ["timing arm 1 of 2: a", "timing arm 2 of 2: b"]
    assert "timing arm" not in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("budget", "seeds", "trials"),
    [
        ("{trials: 10}", "[0, 1]", 10 + 2 + 3 + 4),  # points, baseline and three best on the others, two on fresh ones
        ("{trials: 2}", "[0, 1]", 2 + 2 + 2 + 4),
        ("{trials: 10}", "[0]", 10 + 2),
        ("{hours: 1}", "[0]", 2 * 3600 // 30 + 2),
    ],
)
def test_the_estimate_of_a_search_counts_its_points_and_what_comes_after_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    budget: str, seeds: str, trials: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(estimate, "training_seconds", lambda loaded: 30.0)
    text = printed(tmp_path, f"{SEARCH}budget: {budget}\nseeds: {seeds}\n", capsys)
    assert f"for {trials} trials in sequence" in text
