"""Which trials a share has: numbers are those of the plan, and what the plan does not have is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, EngineChoice, choose_engine
from jepa_lab.sweeps.plan import Plan, load_plan
from jepa_lab.sweeps.shares import ShareChoice, refuse_engine, share_frame
from jepa_lab.sweeps.study import TableStudy, open_storage, planned_trials
from tests.integration.pipelines import write_tiny

ABLATION = """\
base: tiny.yaml
arms: {smooth: {}, "l2, plain": {loss: l2}, third: {loss: cosine}}
baseline: smooth
seeds: [3, 5]
metric: probe/validation_accuracy
"""
SEARCH = """\
base: tiny.yaml
search: {optimizer.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}}
budget: {trials: 3}
seeds: [0]
metric: probe/validation_accuracy
"""


def plan_of(folder: Path, text: str = ABLATION) -> Plan:
    write_tiny(folder)
    file = folder / "ablation.yaml"
    file.write_text(text)
    return load_plan(file)


@pytest.mark.parametrize(
    ("choice", "numbers"),
    [
        (ShareChoice(only="0-2,5"), [0, 1, 2, 5]),
        (ShareChoice(seeds="5"), [3, 4, 5]),
        (ShareChoice(arms=["l2, plain"]), [1, 4]),
        (ShareChoice(arms=["smooth,third"], seeds="3"), [0, 2]),
        (ShareChoice(only="1-4", arms=["third"]), [2]),
    ],
)
def test_trials_are_numbered_seed_by_seed_and_must_be_in_all_that_is_given(
    choice: ShareChoice, numbers: list[int], tmp_path: Path
) -> None:
    assert choice.numbers(plan_of(tmp_path)) == numbers


def test_the_numbers_are_those_of_the_sweeps_own_study(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    arms = [arm.name for arm in plan.arms]
    study = TableStudy(open_storage(tmp_path / "j", None), "s", "maximize", arms, plan.seeds)
    study.enqueue(planned_trials(arms, plan.seeds))
    in_study = [(number, planned.arm, planned.seed) for number, planned in study.to_run()]
    frame = share_frame(plan, range(6))
    assert list(frame.itertuples(index=False, name=None)) == in_study


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (ShareChoice(only="4-6"), "--only: 6 is not in the plan, which has trials 0 to 5"),
        (ShareChoice(only="a"), "--only: must be numbers and ranges of numbers"),
        (ShareChoice(only="3-1"), "--only: 3-1 runs backwards; write 1-3"),
        (ShareChoice(arms=["l2"]), "--arm: there is no arm 'l2'; the arms are 'smooth', 'l2, plain', 'third'"),
        (ShareChoice(seeds="4"), "--seed: 4 is not in the plan, which has the seeds 3, 5"),
        (ShareChoice(only="0", seeds="5"), "together leave no trial"),
    ],
)
def test_what_the_plan_does_not_have_is_refused(choice: ShareChoice, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        choice.numbers(plan_of(tmp_path))
    assert message in str(error.value)


def test_a_search_is_not_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a search, whose points depend on those before them"):
        ShareChoice(only="0").numbers(plan_of(tmp_path, SEARCH))


def test_an_engine_that_distributes_and_a_storage_are_refused() -> None:
    local = choose_engine(NO_ENGINE_SETTINGS, EngineChoice(), on_gpu=False)
    with pytest.raises(ConfigError, match=r"^--storage: a share of a sweep tells no study"):
        refuse_engine(local, "sqlite:///a.db")
    refuse_engine(local, None)
