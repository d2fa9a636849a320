"""The plan's digest and record: what makes it another plan, and how that is said."""

from __future__ import annotations

import json

import pytest

from jepa_lab.sweeps.labels import label
from jepa_lab.sweeps.plan import Plan, differences
from jepa_lab.sweeps.plan_table import print_plan_table
from jepa_lab.tracking.records import read_record, write_record
from tests.unit.sweeps.ablations import plan_of
from tests.unit.tables.reading import WIDTHS, assert_lines_fit, printed

ARMS = "arms: {a: {}, b: {masker: random}, c: {training.epochs: 5}}\nbaseline: a\nseeds: [0, 1]\n"
SEARCH = """\
search:
  optimizer.learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}
  loss: {type: categorical, choices: [smooth_l1, l2]}
  loss.beta: {type: float, low: 0.5, high: 2, when: {loss: smooth_l1}}
budget: {trials: 7}
pruner: median
"""


def test_a_record_survives_its_file_and_equals_the_plan(tmp_path) -> None:
    for text in (
        ARMS,
        SEARCH,
        "one_at_a_time: {masker.target_scale: [[0.2, 0.25]], data.root: [x]}\n",
    ):
        plan = plan_of(tmp_path, text)
        write_record(tmp_path / "plan.json", "plan", 1, plan.to_record())
        assert differences(read_record(tmp_path / "plan.json", "plan", 1), plan) == []


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (ARMS, ARMS.replace("[0, 1]", "[0, 2]"), ["seeds: [0, 1] before, [0, 2] now"]),
        (ARMS, ARMS + "metric: probe/knn_validation_accuracy\n", ["metric: "]),
        (ARMS, ARMS + "direction: minimize\n", ['direction: "maximize" before, "minimize" now']),
        (ARMS, ARMS.replace("baseline: a", "baseline: a\noverrides: {optimizer.eps: 1e-7}"),
         ["optimizer.eps: 1e-08 before, 1e-07 now"]),
        (ARMS, ARMS.replace("epochs: 5", "epochs: 6"), ["arm 'c'"]),
        (ARMS, ARMS.replace("c: {training.epochs: 5}", "d: {training.epochs: 5}"),
         ["arm 'c': {", "arm 'd': absent before"]),
        (ARMS, ARMS.replace("a: {}", "a: {loss: l2}"), ["loss.name: ", "loss.beta: 1.0 before, absent now"]),
        (SEARCH, SEARCH.replace("high: 1e-2", "high: 1e-1"), ["search optimizer.learning_rate"]),
        (SEARCH, SEARCH + "sampler: random\n", ['search sampler: "tpe" before, "random" now']),
        (SEARCH, SEARCH.replace("pruner: median", ""), ['search pruner: "median" before, null now']),
        (SEARCH, SEARCH.replace("[smooth_l1, l2]", "[smooth_l1, {name: l2, over_features: mean}]"), ["search loss"]),
    ],
)  # fmt: skip
def test_what_can_change_a_result_changes_the_digest_and_is_named(tmp_path, before, now, expected) -> None:
    first, second = plan_of(tmp_path, before), plan_of(tmp_path, now)
    assert first.digest != second.digest
    lines = differences(json.loads(json.dumps(first.to_record())), second)
    for part in expected:
        assert any(line.startswith(part) for line in lines) or any(part in line for line in lines), lines


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (ARMS, ARMS + "retries: 3\n"),
        (ARMS, ARMS + "overrides: {tracking: none}\n"),
        (ARMS, ARMS.replace("masker: random", "masker: {name: random}")),
        (SEARCH, SEARCH.replace("trials: 7", "trials: 9")),
        (SEARCH, SEARCH.replace("trials: 7", "hours: 9")),
    ],
)
def test_what_changes_no_result_leaves_the_digest(tmp_path, before, now) -> None:
    first, second = plan_of(tmp_path, before), plan_of(tmp_path, now)
    assert first.digest == second.digest
    assert differences(first.to_record(), second) == []


def _printed(plan: Plan, width: int = 120) -> str:
    return printed(width, lambda console: print_plan_table(plan, console))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "arms",
    [
        ARMS,
        "arms: {a: , 'three levels, pooling, skip connections': {hierarchy.num_levels: 2, "
        "hierarchy.loss_weights: [1.0, 0.7], training.epochs: 3, context_batching: pad}}\nbaseline: a\n",
        SEARCH,
    ],
)
def test_a_described_plan_is_readable_in_a_terminal(tmp_path, arms: str, width: int) -> None:
    plan = plan_of(tmp_path, arms)
    text = _printed(plan, width)
    assert_lines_fit(text, width)
    for arm in plan.arms if plan.search is None else ():
        assert set(arm.name.split()) <= set(text.split())
        assert all(f"{key}={label(value)}" in text for key, value in arm.overrides.items())
    for parameter in () if plan.search is None else plan.search.parameters:
        assert parameter.key in text.split()


def test_a_described_plan_shows_arms_changes_and_trials(tmp_path) -> None:
    found = _printed(plan_of(tmp_path, ARMS + "metric: training_seconds\n"))
    for part in ("example (arms)", "lower is better", "3 arms x 2 seeds (0, 1) = 6", "a (baseline)", "masker=random"):
        assert part in found, found


def test_a_described_search_shows_its_space(tmp_path) -> None:
    found = _printed(plan_of(tmp_path, SEARCH + "seeds: [3]\n"))
    for part in ("7 trials by tpe", "float 0.0001 to 0.01, logarithmic", "smooth_l1, l2", "loss=smooth_l1", "one seed"):
        assert part in found, found


def test_a_described_plan_of_many_arms_says_how_many_it_leaves_out(tmp_path) -> None:
    text = f"one_at_a_time: {{training.epochs: {list(range(4, 84))}}}\nseeds: [0, 1]\n"
    assert "and 21 more arms" in _printed(plan_of(tmp_path, text))


def test_names_with_brackets_are_shown_as_they_are(tmp_path) -> None:
    assert "[bold]b[/]" in _printed(plan_of(tmp_path, "arms: {a: , '[bold]b[/]': {masker: random}}\nbaseline: a\n"))
