"""What a command line chooses of an ablation: base, seeds, metric, arms; and every shipped one on CIFAR-10."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jepa_lab.config.shipped import shipped_files
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.choices import Choices, parse_numbers
from jepa_lab.sweeps.plan import Plan, load_plan
from tests.integration.pipelines import TINY
from tests.unit.sweeps.ablations import write_ablation

ARMS = """\
baseline: small
arms:
  small: {predictor.size: half}
  random: {masker: random}
  random, five epochs: {masker: random, training.epochs: 5}
seeds: [0, 1, 2]
"""
GRID = "grid: {masker: [multi_block, random], loss: [l2, smooth_l1]}\nbaseline: {masker: multi_block, loss: l2}\n"
ONES = "one_at_a_time: {masker: [random], loss: [l2]}\n"
SEARCH = "search: {loss: {type: categorical, choices: [l2, smooth_l1]}}\nbudget: {trials: 2}\n"


def plan_of(folder: Path, text: str, choices: Choices, preset: str | None = None) -> Plan:
    return load_plan(write_ablation(folder, text), (), preset, choices)


def refusal(folder: Path, text: str, choices: Choices) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_of(folder, text, choices)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("0,3,5-7", (0, 3, 5, 6, 7)), (" 1 , 2-3 ", (1, 2, 3)), ("5-5", (5,))],
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_numbers(text, "--seeds", "seed") == seeds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be numbers and ranges"),
        ("0-", "must be numbers and ranges"),
        ("-3", "must be numbers and ranges"),
        ("1.5", "must be numbers and ranges"),
        ("[0, 1]", "must be numbers and ranges"),
        ("4-0", "4-0 runs backwards; write 0-4"),
        ("0-1000000000000000000", "more than 10,000 seeds"),
        ("9999999999999999999", "below 2^63"),
    ],
)
def test_other_seeds_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        parse_numbers(text, "--seeds", "seed")
    assert str(caught.value).startswith("--seeds: ")


def test_seeds_of_the_command_line_win_over_the_file_and_over_a_preset(tmp_path: Path) -> None:
    assert plan_of(tmp_path, ARMS, Choices(seeds=(4, 5, 6))).seeds == (4, 5, 6)
    assert plan_of(tmp_path, ARMS, Choices(seeds=(4, 5, 6)), "smoke").seeds == (4, 5, 6)
    assert "--seeds: seeds has 4 2 times" in refusal(tmp_path, ARMS, Choices(seeds=(4, 4)))


def test_a_seed_keeps_its_own_validation_split(tmp_path: Path) -> None:
    text = f"{ARMS}split_seeds: [10, 11, 12]\n"
    plan = plan_of(tmp_path, text, Choices(seeds=(2, 0)))
    assert (plan.seeds, plan.split_seeds) == ((2, 0), (12, 10))
    assert "--seeds: 3 has no split seed" in refusal(tmp_path, text, Choices(seeds=(0, 3)))


def test_chosen_arms_are_trained_beside_the_baseline_and_only_they(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ARMS, Choices(arms=("random",)))
    assert [arm.name for arm in plan.arms] == ["small", "random"]
    assert plan.swept_keys == ("predictor.size", "masker")
    whole = plan_of(tmp_path, ARMS, Choices())
    assert plan.digest != whole.digest
    assert plan_of(tmp_path, ARMS, Choices(arms=("random,random, five epochs",))).digest == whole.digest


@pytest.mark.parametrize(
    ("text", "given", "arms"),
    [
        (ARMS, ("random, five epochs",), ["random, five epochs"]),
        (ARMS, ("small,random",), ["random"]),
        (ARMS, ("random", "random, five epochs"), ["random", "random, five epochs"]),
        (GRID, ("masker=random, loss=l2",), ["masker=random, loss=l2"]),
        (ONES, ("loss=l2",), ["loss=l2"]),
    ],
)
def test_names_with_commas_are_found(tmp_path: Path, text: str, given: tuple[str, ...], arms: list[str]) -> None:
    plan = plan_of(tmp_path, text, Choices(arms=given))
    assert [arm.name for arm in plan.arms if arm.name != plan.baseline] == arms


def test_an_unknown_arm_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, ARMS, Choices(arms=("random,large",)))
    assert message == "--arms: there is no arm 'large'; the arms are 'small', 'random', 'random, five epochs'"
    assert "is the baseline, which is trained in any case" in refusal(tmp_path, ARMS, Choices(arms=("small",)))
    assert "a search has no arms" in refusal(tmp_path, SEARCH, Choices(arms=("baseline",)))


def test_a_metric_of_the_command_line_has_its_own_direction(tmp_path: Path) -> None:
    text = f"{ARMS}metric: rankme_end\ndirection: minimize\n"
    assert plan_of(tmp_path, text, Choices(metric="rankme_end")).direction == "minimize"
    plan = plan_of(tmp_path, text, Choices(metric="probe/knn_validation_accuracy"))
    assert (plan.metric, plan.direction) == ("probe/knn_validation_accuracy", "maximize")
    assert refusal(tmp_path, ARMS, Choices(metric="probe/test_accuracy")).startswith("--metric: ")
    assert refusal(tmp_path, ARMS, Choices(metric="probe/attentive_validation_accuracy")).startswith("--metric: ")


def test_another_base_takes_the_place_of_the_files_own_and_of_what_is_for_it_alone(tmp_path: Path) -> None:
    other = tmp_path / "other place" / "other.yaml"
    other.parent.mkdir()
    other.write_text(TINY.replace("epochs: 3", "epochs: 7"))
    text = f"{ARMS}base_overrides: {{training.batch_size: 20, masker.num_targets: 1}}\n"
    text += "overrides: {masker.num_targets: 3}\n"
    own, moved = plan_of(tmp_path, text, Choices()), plan_of(tmp_path, text, Choices(base=other))
    found = [plan.pipelines["small"].pipeline for plan in (own, moved)]
    assert [each.training.batch_size for each in found] == [20, 24]
    assert [each.training.epochs for each in found] == [3, 7]
    assert [each.masker.num_targets for each in found] == [3, 3]
    assert [each.name for each in found] == ["example", "example"]
    assert moved.notes[-1].endswith("for tiny.yaml alone: training.batch_size=20, masker.num_targets=1")


def test_a_base_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, ARMS, Choices(base=tmp_path / "none.yaml")).startswith("--base: ")
    ablation = write_ablation(tmp_path, ARMS, "another")
    assert "which is an ablation; name a pipeline" in refusal(tmp_path, ARMS, Choices(base=ablation))


def test_a_base_may_be_the_name_of_a_pipeline_that_comes_with_jepa_lab(tmp_path: Path) -> None:
    file = tmp_path / "named.yaml"
    file.write_text("base: shapes\none_at_a_time: {loss: [l2]}\n")
    assert load_plan(file).pipelines["baseline"].pipeline.data.dataset.name == "synthetic"


@pytest.mark.parametrize("name", sorted(shipped_files("ablation")))
def test_every_shipped_ablation_is_valid_on_cifar10(name: str) -> None:
    base = shipped_files("pipeline")["cifar10"]
    for preset in (None, "smoke"):
        plan = load_plan(shipped_files("ablation")[name], (), preset, Choices(base=base))
        pipelines = [loaded.pipeline for loaded in plan.pipelines.values()]
        assert {each.name for each in pipelines} == {name}
        assert {each.encoder.size.name for each in pipelines} == {"custom" if preset else "cifar"}
        if preset is None:
            assert {each.data.dataset.name for each in pipelines} == {"cifar10"}
            assert {each.encoder.patch_size for each in pipelines} == {4}
            assert {each.training.epochs for each in pipelines} == {100}
