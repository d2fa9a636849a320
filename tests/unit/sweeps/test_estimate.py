"""`--dry-run`: the plan with an estimate of its time, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jepa_lab.sweeps import estimate
from jepa_lab.sweeps.estimate import print_plan
from jepa_lab.sweeps.executors import EXECUTORS
from tests.unit.sweeps.ablations import plan_of

ARMS = "arms: {a: {}, b: {masker: random}}\nbaseline: a\n"
SEARCH = "search: {optimizer.learning_rate: {type: float, low: 1e-4, high: 1e-2}}\n"


def printed(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> str:
    plan = plan_of(folder, text)
    before = sorted(folder.rglob("*"))
    print_plan(plan, EXECUTORS.get("local").config_type.model_validate({"slots": 2}))
    assert sorted(folder.rglob("*")) == before
    return " ".join(capsys.readouterr().out.split())


def test_the_estimate_of_a_table_rests_on_measured_steps_of_every_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(tmp_path, ARMS + "seeds: [0, 1, 2]\n", capsys)
    assert "trials: 2 arms x 3 seeds (0, 1, 2) = 6" in text
    assert "masker=random" in text
    assert re.search(r"training takes about \d+ s of 6 trials one after another, \d+ s on 2 slots", text), text


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
    assert f"of {trials} trials one after another" in text
