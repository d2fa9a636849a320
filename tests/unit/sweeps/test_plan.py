"""From an ablation file to its arms: which there are, what their pipelines hold."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.build import prepare_data
from jepa_lab.config.loading import config_digest, load_pipeline
from jepa_lab.sweeps.labels import MAX_NAME, label
from jepa_lab.sweeps.plan import differences, load_plan
from tests.unit.sweeps.ablations import plan_of, write_ablation

ARMS = """\
overrides: {training.epochs: 2, masker.num_targets: 3}
baseline: plain
arms:
  scattered: {masker: random}
  plain: {}
  four: {masker.num_targets: 4, loss: {name: l2, over_features: mean}}
seeds: [3, 1]
"""


def test_arms_are_the_base_with_common_overrides_and_their_own(tmp_path) -> None:
    plan = plan_of(tmp_path, ARMS)
    assert [arm.name for arm in plan.arms] == ["plain", "scattered", "four"]
    assert plan.baseline == "plain"
    assert plan.seeds == (3, 1)
    assert plan.num_trials == 6
    assert plan.swept_keys == ("masker", "masker.num_targets", "loss")
    assert dict(plan.arms[2].overrides) == {"masker.num_targets": 4, "loss": {"name": "l2", "over_features": "mean"}}
    # The same pipelines as by hand.
    tiny = tmp_path / "tiny.yaml"
    common = ["name=example", "training.epochs=2", "masker.num_targets=3", "seed=7"]
    by_hand = {
        "plain": [],
        "scattered": ["masker=random"],
        "four": ["masker.num_targets=4", "loss={name: l2, over_features: mean}"],
    }
    for arm in plan.arms:
        assert plan.pipeline(arm, 7).pipeline == load_pipeline(tiny, common + by_hand[arm.name]).pipeline


def test_flat_values_are_read_from_the_pipeline_and_are_scalars(tmp_path) -> None:
    plan = plan_of(tmp_path, ARMS.replace("over_features: mean", "over_features: sum"))
    plain, scattered, four = map(plan.flat_values, plan.arms)
    assert plain["masker.num_targets"] == 3
    assert plain["loss"] == "smooth_l1"
    assert scattered == {"masker": "random", "masker.num_targets": None, "loss": "smooth_l1"}
    assert four["loss"] == "l2"  # the default is written like the bare name
    assert four["masker"] == "multi_block(min_context_patches=2)"  # 4 targets are the default


def test_a_list_is_a_label_among_the_flat_values(tmp_path) -> None:
    plan = plan_of(tmp_path, "one_at_a_time: {masker.target_scale: [[0.2, 0.25]]}")
    assert [plan.flat_values(arm)["masker.target_scale"] for arm in plan.arms] == ["[0.15, 0.2]", "[0.2, 0.25]"]


def test_a_grid_is_every_combination_and_its_baseline_comes_first(tmp_path) -> None:
    plan = plan_of(
        tmp_path,
        "grid: {masker: [random, {name: multi_block, min_context_patches: 2}], training.epochs: [1, 2, 3]}\n"
        "baseline: {masker: {name: random}, training.epochs: 2}\n",
    )
    assert len(plan.arms) == 6
    assert plan.arms[0].name == plan.baseline == "masker=random, training.epochs=2"
    assert "masker=multi_block(min_context_patches=2), training.epochs=3" in [arm.name for arm in plan.arms]
    cells = {(p.masker.name, p.training.epochs) for p in (plan.pipeline(arm, 0).pipeline for arm in plan.arms)}
    assert cells == {(masker, epochs) for masker in ("random", "multi_block") for epochs in (1, 2, 3)}


def test_one_at_a_time_changes_one_key_beside_the_base(tmp_path) -> None:
    plan = plan_of(tmp_path, "one_at_a_time: {masker: [random], encoder.size.depth: [2, 3], data.root: [a b]}\n")
    names = ["baseline", "masker=random", "encoder.size.depth=2", "encoder.size.depth=3", "data.root=a b"]
    assert [arm.name for arm in plan.arms] == names
    depths = [plan.pipeline(arm, 0).pipeline.encoder.size.depth for arm in plan.arms]
    assert depths == [1, 1, 2, 3, 1]
    maskers = [plan.pipeline(arm, 0).pipeline.masker.name for arm in plan.arms]
    assert maskers == ["multi_block", "random", "multi_block", "multi_block", "multi_block"]


def test_trials_are_named_after_the_ablation_and_differ_in_their_seed_alone(tmp_path) -> None:
    plan = plan_of(tmp_path, ARMS)
    first, second = (plan.pipeline(plan.arms[1], seed).pipeline for seed in plan.seeds)
    assert first.name == plan.name == "example"
    assert (first.seed, second.seed) == (3, 1)
    assert config_digest(first) == config_digest(second)
    assert plan_of(tmp_path, ARMS + "name: other\n").pipeline(plan.arms[0], 0).pipeline.name == "other"


def test_command_line_overrides_come_after_the_files_and_are_for_all_arms(tmp_path) -> None:
    plan = plan_of(tmp_path, ARMS, "training.epochs=5", "optimizer.eps=0.5")
    assert {plan.pipeline(arm, 0).pipeline.training.epochs for arm in plan.arms} == {5}
    assert {plan.pipeline(arm, 0).pipeline.optimizer.eps for arm in plan.arms} == {0.5}


def test_defaults_are_five_seeds_and_the_validation_accuracy(tmp_path) -> None:
    plan = plan_of(tmp_path, "one_at_a_time: {masker: [random]}")
    assert plan.seeds == (0, 1, 2, 3, 4)
    assert (plan.metric, plan.direction, plan.retries) == ("probe/validation_accuracy", "maximize", 1)
    assert plan.notes == ()


def test_a_metric_has_its_own_direction_unless_one_is_given(tmp_path) -> None:
    arms = "one_at_a_time: {masker: [random]}\nmetric: training_seconds\n"
    assert plan_of(tmp_path, arms).direction == "minimize"
    assert plan_of(tmp_path, arms + "direction: maximize\n").direction == "maximize"


def test_one_seed_is_possible_and_noted(tmp_path) -> None:
    plan = plan_of(tmp_path, "one_at_a_time: {masker: [random]}\nseeds: [4]\n")
    assert plan.num_trials == 2
    assert "no intervals" in plan.notes[0]


def test_the_smoke_preset_is_for_every_arm_and_leaves_what_is_studied(tmp_path) -> None:
    text = "overrides: {training.epochs: 9}\none_at_a_time: {masker: [random], training.epochs: [7]}\n"
    plan = plan_of(tmp_path, text, "probe.every_epochs=2", preset="smoke")
    assert plan.seeds == (0, 1)
    assert [arm.name for arm in plan.arms] == ["baseline", "masker=random", "training.epochs=7"]
    pipelines = [plan.pipeline(arm, 0).pipeline for arm in plan.arms]
    assert [pipeline.training.epochs for pipeline in pipelines] == [2, 2, 7]
    assert [pipeline.masker.name for pipeline in pipelines] == ["multi_block", "random", "multi_block"]
    assert {pipeline.data.max_images for pipeline in pipelines} == {256}
    assert {pipeline.probe.every_epochs for pipeline in pipelines} == {2}  # the command line wins


@pytest.mark.parametrize("where", ["base", "overrides", "command line"])
def test_plugins_of_the_base_the_overrides_and_the_command_line_are_loaded(tmp_path, monkeypatch, where) -> None:
    module = f"plugin_of_{where.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text(
        "from jepa_lab.losses.base import LOSSES\nfrom jepa_lab.losses.l2 import L2Loss\n"
        f"@LOSSES.register('{module}', summary='mine', source='test')\nclass Mine(L2Loss):\n    'Mine.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = f"one_at_a_time: {{loss: [{module}]}}\n"
    file = write_ablation(tmp_path, text + (f"overrides: {{plugins: [{module}]}}\n" if where == "overrides" else ""))
    if where == "base":
        with open(tmp_path / "tiny.yaml", "a") as tiny:
            tiny.write(f"plugins: [{module}]\n")
    plan = load_plan(file, [f"plugins=[{module}]"] if where == "command line" else [])
    assert plan.pipeline(plan.arms[1], 0).pipeline.loss.name == module


def test_names_of_arms_are_any_text_and_generated_ones_stay_short_and_different(tmp_path) -> None:
    name = "größer: a=b, «x» 👩‍💻 " + "y" * 40
    plan = plan_of(tmp_path, f'arms: {{"{name}": {{masker: random}}, b: }}\nbaseline: b\n')
    assert plan.arms[1].name == name
    long = [f"mod_{'x' * 60}_{number}" for number in range(2)]
    probe = "{dataset: digits, root: " + "z" * 90 + "}"
    text = f"grid: {{data.root: [{', '.join(long)}], probe.data: [null, {probe}]}}\n"
    plan = plan_of(tmp_path, text + f"baseline: {{data.root: {long[0]}, probe.data: null}}\n")
    names = [arm.name for arm in plan.arms]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= MAX_NAME


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("half", "half"),
        (0.001, "0.001"),
        (True, "true"),
        (None, "null"),
        ([0.15, [1, 2]], "[0.15, [1, 2]]"),
        ({"name": "random"}, "random"),
        ({"num_targets": 2, "name": "multi_block"}, "multi_block(num_targets=2)"),
        ({"dataset": {"name": "digits"}}, "{dataset: digits}"),
    ],
)
def test_labels_look_like_what_was_written(value, expected) -> None:
    assert label(value) == expected


def test_each_seed_has_a_validation_split_of_its_own_and_the_test_split_of_all(tmp_path) -> None:
    plan = plan_of(tmp_path, ARMS + "split_seeds: [10, 11]\n", "data.split_seed=5")
    data = {(arm.name, seed): plan.pipeline(arm, seed).pipeline.data for arm in plan.arms for seed in plan.seeds}
    assert {key: each.split_seed for key, each in data.items()} == {
        (arm.name, seed): split for arm in plan.arms for seed, split in ((3, 10), (1, 11))
    }
    assert {each.test_split_seed for each in data.values()} == {5}
    divided = [prepare_data(plan.pipeline(plan.arms[0], seed).pipeline) for seed in plan.seeds]
    assert torch.equal(divided[0].test.images, divided[1].test.images)
    assert not torch.equal(divided[0].validation.images, divided[1].validation.images)


def test_split_seeds_make_another_sweep_and_without_any_the_plan_is_recorded_as_ever(tmp_path) -> None:
    plain, split = plan_of(tmp_path, ARMS), plan_of(tmp_path, ARMS + "split_seeds: [10, 11]\n")
    assert "split_seeds" not in plain.to_record()
    assert plain.digest != split.digest
    assert differences(plain.to_record(), split) == ["split_seeds: absent before, [10, 11] now"]
    assert plan_of(
        tmp_path, ARMS.replace("[3, 1]", "[3, 1, 2]") + "split_seeds: [7, 8, 9]\n", preset="smoke"
    ).split_seeds == (7, 8)
