"""The space of a search: parameters, conditions, the pipeline at a point, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.plan import Plan
from tests.unit.sweeps.ablations import plan_of, refusal

SPACE = """\
overrides: {training.epochs: 2}
search:
  optimizer.learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}
  masker: {type: categorical, choices: [random, {name: multi_block, min_context_patches: 2}]}
  masker.num_targets: {type: int, low: 1, high: 3, when: {masker: {name: multi_block, min_context_patches: 2}}}
  masker.target_ratio: {type: categorical, choices: [[0.4, 0.6], [0.5, 0.6]], when: {masker: random}}
  training.batch_size: {type: int, low: 8, high: 24, step: 8}
sampler: random
sampler_seed: 5
budget: {hours: 1.5}
pruner: hyperband
seeds: [0, 1]
"""
MULTI_BLOCK = "multi_block(min_context_patches=2)"


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return plan_of(tmp_path_factory.mktemp("search"), SPACE)


def test_a_search_has_its_space_and_the_baseline_alone_as_an_arm(plan) -> None:
    search = plan.search
    assert [arm.name for arm in plan.arms] == [plan.baseline] == ["baseline"]
    assert plan.swept_keys == tuple(parameter.key for parameter in search.parameters)
    assert (search.sampler, search.sampler_seed, search.pruner) == ("random", 5, "hyperband")
    assert (search.budget.trials, search.budget.hours) == (None, 1.5)
    rate, masker, targets, ratio, batch = search.parameters
    assert (rate.kind, rate.low, rate.high, rate.log, rate.step) == ("float", 1e-4, 1e-2, True, None)
    assert masker.choices == ("random", MULTI_BLOCK)
    assert (targets.step, batch.step) == (1, 8)
    assert ratio.choices == ("[0.4, 0.6]", "[0.5, 0.6]")
    assert targets.when == {"masker": MULTI_BLOCK}


def test_choices_are_scalars_as_optuna_needs_them(plan) -> None:
    for parameter in plan.search.parameters:
        assert all(isinstance(choice, str | int | float | bool | None) for choice in parameter.choices)


def test_the_pipeline_at_a_point_is_the_one_by_hand(plan) -> None:
    point = {
        "optimizer.learning_rate": 0.002,
        "masker": MULTI_BLOCK,
        "masker.num_targets": 3,
        "training.batch_size": 16,
    }
    tiny = Path(plan.search.base.document.origin)
    by_hand = [
        "name=example", "training.epochs=2", "seed=9", "optimizer.learning_rate=0.002",
        "masker={name: multi_block, min_context_patches: 2, num_targets: 3}", "training.batch_size=16",
    ]  # fmt: skip
    assert plan.search.pipeline_of(point, 9).pipeline == load_pipeline(tiny, by_hand).pipeline
    other = {**point, "masker": "random", "masker.target_ratio": "[0.5, 0.6]"}
    del other["masker.num_targets"]
    assert plan.search.pipeline_of(other, 9).pipeline.masker.target_ratio == (0.5, 0.6)


def test_a_parameter_exists_only_under_its_condition(plan) -> None:
    _, _, targets, ratio, batch = plan.search.parameters
    assert targets.applies({"masker": MULTI_BLOCK})
    assert not targets.applies({"masker": "random"})
    assert not targets.applies({})
    assert ratio.applies({"masker": "random"})
    assert batch.applies({})
    with pytest.raises(AssertionError, match="another space"):
        plan.search.pipeline_of({"masker": "random", "masker.num_targets": 2}, 0)


def test_a_point_whose_values_do_not_go_together_is_an_error_of_its_own(tmp_path) -> None:
    text = (
        "search:\n"
        "  encoder.size.embed_dim: {type: int, low: 16, high: 24, step: 4}\n"
        "  encoder.size.num_heads: {type: categorical, choices: [2, 4]}\n"
        "budget: {trials: 3}\n"
    )
    search = plan_of(tmp_path, text).search
    good, bad = ({"encoder.size.embed_dim": width, "encoder.size.num_heads": 4} for width in (24, 20))
    assert search.pipeline_of(good, 0).pipeline.encoder.size.embed_dim == 24
    broken = {"encoder.size.embed_dim": 22, "encoder.size.num_heads": 4}
    search.pipeline_of(bad, 0)
    with pytest.raises(ConfigError, match=r"example.yaml:\d: .*num_heads must divide"):
        search.pipeline_of(broken, 0)


def test_smoke_has_few_trials(tmp_path) -> None:
    assert plan_of(tmp_path, SPACE, preset="smoke").search.budget.trials == 4
    few = SPACE.replace("hours: 1.5", "trials: 2")
    assert plan_of(tmp_path, few, preset="smoke").search.budget.trials == 2


SEARCH = "search:\n  loss: {type: categorical, choices: [l2, smooth_l1]}\n  %s\nbudget: {trials: 3}\n"


@pytest.mark.parametrize(
    ("parameter", "parts"),
    [
        ("training.epochs: {type: int, low: 3, high: 1}", ["example.yaml:4", "low must be below high", "3 and 1"]),
        ("training.epochs: {type: int, low: 0, high: 3}", ["training.epochs must be", "got 0"]),
        ("training.epochs: {type: int, low: 1, high: 2.5}", ["must be integers"]),
        ("training.epochs: {type: int, low: 1}", ["low and high are both needed"]),
        ("training.epochs: {type: int, low: 1, high: 6, step: 2}", ["step must divide high - low"]),
        ("training.epochs: {type: int, low: 1, high: 6, choices: [1]}", ["choices belong to type: categorical"]),
        ("training.epochs: {type: integer, low: 1, high: 6}", ["type must be", "did you mean 'int'?"]),
        ("training.epochs: {type: int, low: 1, hihg: 6}", ["unknown key", "hihg", "did you mean 'high'?"]),
        ("training.epochs: {type: int, low: true, high: 6}", ["low must be a number", "True"]),
        ("training.epoch: {type: int, low: 1, high: 6}", ["unknown key training.epoch", "'epochs'"]),
        ("optimizer.eps: {type: float, low: 0, high: 1, log: true}", ["above 0 on a logarithmic scale"]),
        ("optimizer.eps: {type: float, low: 1, high: 2, log: true, step: 1}", ["step and log exclude each other"]),
        ("masker: {type: categorical, choices: [random, randm]}", ["'randm'", "'random'", "[value 'masker=randm']"]),
        ("masker: {type: categorical, choices: [random, random]}", ["random twice"]),
        ("masker: {type: categorical, choices: ['[1]', [1]]}", ["[1] twice"]),
        ("masker: {type: categorical}", ["choices are missing"]),
        ("masker: {type: categorical, low: 1, choices: [random]}", ["has choices, not low"]),
        ("loss.beta: {type: float, low: 1, high: 2, when: {masker: x}}", ["not a categorical key before loss.beta"]),
        ("loss.beta: {type: float, low: 1, high: 2, when: {loss: l3}}", ["loss: l3", "none of its choices", "l2, smo"]),
        ("loss.beta: {type: float, low: 1, high: 2, when: {loss: l2}}",
         ["unknown key loss.beta", "[values 'loss=l2, loss.beta=1.0', 'loss=l2, loss.beta=2.0']"]),
        ("seed: {type: int, low: 1, high: 6}", ["seed cannot differ"]),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(tmp_path, parameter: str, parts: list[str]) -> None:
    found = "\n".join(refusal(tmp_path, SEARCH % parameter))
    assert "example.yaml:4" in found
    for part in parts:
        assert part in found, found


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (SEARCH.replace("budget: {trials: 3}", "") % "", "a search needs a budget"),
        (SEARCH.replace("trials: 3", "trials: 3, hours: 1") % "", "exactly one of trials and hours"),
        (SEARCH.replace("trials: 3", "") % "", "exactly one of trials and hours"),
        (SEARCH.replace("trials: 3", "trials: 0") % "", "budget.trials must be"),
        (SEARCH % "" + "baseline: x\n", "baseline is the base with its overrides"),
        (SEARCH % "" + "sampler: grid\n", "sampler must be"),
        (SEARCH % "" + "pruner: median\nmetric: rankme_end\n", "a pruner judges by the online probe"),
        (SEARCH % "loss.beta: {type: float, low: 1, high: 2, when: {loss: smooth_l1}}" + "sampler: gp\n",
         "which the sampler 'gp' cannot do"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_refused(tmp_path, text: str, part: str) -> None:
    lines = refusal(tmp_path, text)
    assert len(lines) == 1, lines
    assert part in lines[0]
