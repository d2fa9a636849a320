"""The shipped ablations: valid on digits and on CIFAR-10, described by the schema, small enough for a CPU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from jepa_lab.cli import main
from jepa_lab.config.loading import config_digest
from jepa_lab.sweeps.plan import load_plan

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "ablations").glob("*.yaml"))
TABLES = {
    "augmentation_strength", "ema_momentum", "hierarchy", "low_shot", "masking_strategy", "position_embedding",
    "predictor_size", "prediction_target", "regularizer",
}  # fmt: skip
"""Those that answer a table or a claim of one of the documents."""
EXPECTED = TABLES | {"context_batching", "learning_rate_search", "loss", "mask_geometry", "masker"}
ARMS: dict[str, list[dict[str, Any]]] = {
    "augmentation_strength": [{"augmentation": name} for name in ("none", "minimal", "moderate", "strong")],
    "ema_momentum": [{"ema_momentum": name} for name in ("constant", "cosine", "linear")],
    "hierarchy": [
        *({"hierarchy.num_levels": levels} for levels in (1, 2, 3)),
        *({"hierarchy.downsampling": name} for name in ("pooling", "conv")),
        *({"hierarchy.skip_connections": value} for value in (True, False)),
        *({"hierarchy.predictor": value} for value in ("separate", "shared")),
        *({"hierarchy.count_targets_on": value} for value in ("patches", "level_below")),
        *({"probe.levels": value} for value in (None, "[1, 2, 3]")),
    ],
    "low_shot": [{"target": name} for name in ("features", "normalized_pixels")],
    "masking_strategy": [{"masker": name} for name in ("random", "single_block", "multi_block", "multi_context")],
    "position_embedding": [
        {f"{network}.position": name} for network in ("encoder", "predictor") for name in ("sincos", "learned", "rope")
    ],
    "predictor_size": [{"predictor.size": name} for name in ("192x3", "384x6", "768x12", "1024x12")],
    "prediction_target": [
        {"target": name} for name in ("pixels", "normalized_pixels", "pca", "pooled_features", "features")
    ],
    "regularizer": [{"regularizer": name} for name in ("none", "vicreg")],
}
"""For every table, what some arm of its ablation must be."""


def test_all_of_them_are_there() -> None:
    assert {file.stem for file in SHIPPED} == EXPECTED


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_ablation_is_valid_has_five_seeds_and_a_smoke_preset(file: Path) -> None:
    plan = load_plan(file)
    assert plan.name == file.stem
    assert plan.seeds == (0, 1, 2, 3, 4)
    assert plan.pipeline(plan.arms[0], 0).pipeline.data.dataset.name in ("digits", "synthetic")  # no download
    smoke = load_plan(file, preset="smoke")
    assert [arm.name for arm in smoke.arms] == [arm.name for arm in plan.arms]
    assert [smoke.flat_values(arm) for arm in smoke.arms] == [plan.flat_values(arm) for arm in plan.arms]
    assert len(smoke.seeds) == 2


def is_value(found: object, wanted: object) -> bool:
    """Whether a label is this value, or this component with some parameters."""
    return str(found) == str(wanted) or str(found).startswith(f"{wanted}(")


def test_momenta_of_the_table_are_fixed_ones_and_a_cosine() -> None:
    plan = load_plan(ROOT / "ablations" / "ema_momentum.yaml")
    schedules = [plan.pipelines[arm.name].pipeline.ema_momentum for arm in plan.arms]
    assert {0.99, 0.996, 0.999} <= {each.value for each in schedules if each.name == "constant"}
    assert (0.996, 1.0) in {(each.start, each.end) for each in schedules if each.name == "cosine"}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_ablation_of_a_table_has_an_arm_for_each_of_its_lines_and_says_that_claims_are_no_results(
    name: str,
) -> None:
    file = ROOT / "ablations" / f"{name}.yaml"
    comments = " ".join(line.removeprefix("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    assert re.search(r"claim is not a result", comments)
    assert re.search(r"guide|document|notes", comments)
    plan = load_plan(file)
    values = [plan.flat_values(arm) for arm in plan.arms]
    for wanted in ARMS[name]:
        assert any(all(is_value(found[key], value) for key, value in wanted.items()) for found in values), wanted


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_arms_of_a_shipped_ablation_are_different_experiments(file: Path) -> None:
    for preset in (None, "smoke"):
        plan = load_plan(file, preset=preset)
        assert len({config_digest(plan.pipelines[arm.name].pipeline) for arm in plan.arms}) == len(plan.arms)


def test_low_shot_is_probed_at_the_labels_of_the_table() -> None:
    plan = load_plan(ROOT / "ablations" / "low_shot.yaml")
    probes = plan.pipelines[plan.baseline].pipeline.probe.additional
    assert [each.shots for each in probes if each.name == "low_shot"] == [(1, 5, 10, 100)]
    assert plan.metric == "probe/low_shot_10_validation_accuracy"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_comment_of_a_shipped_ablation_says_what_it_takes_and_how_it_moves_to_cifar10(file: Path) -> None:
    comments = " ".join(line.removeprefix("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    assert f"jepa-lab sweep {file.stem} --base cifar10" in comments
    assert "on one CPU core" in comments


def test_the_shipped_schema_is_current_and_accepts_the_shipped_ablations() -> None:
    printed = CliRunner().invoke(main, ["schema", "--ablation"], catch_exceptions=False).output
    shipped = json.loads((ROOT / "docs" / "ablation.schema.json").read_text())
    assert json.loads(printed) == shipped, "run `make schema`"
    for file in SHIPPED:
        assert "$schema=../docs/ablation.schema.json" in file.read_text().splitlines()[0]
        content = YAML(typ="safe").load(file.read_text())
        jsonschema.validate(content, shipped, jsonschema.Draft202012Validator)
        for wrong in ({**content, "seads": [1]}, {**content, "seeds": []}, {**content, "arms": {"a": 3}}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(wrong, shipped, jsonschema.Draft202012Validator)


def test_the_objects_of_the_schema_are_described() -> None:
    shipped = json.loads((ROOT / "docs" / "ablation.schema.json").read_text())
    for model in (shipped, *shipped["$defs"].values()):
        for key, field in model["properties"].items():
            assert field.get("description") or "const" in field, key  # the name of a component says itself what it is
