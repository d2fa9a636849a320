"""The shipped ablations: valid on digits and on CIFAR-10, described by the schema, small enough for a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from jepa_lab.cli import main
from jepa_lab.sweeps.plan import load_plan

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "ablations").glob("*.yaml"))
EXPECTED = {
    "context_batching", "ema_momentum", "learning_rate_search", "loss", "mask_geometry", "masker",
    "position_embedding", "predictor_size",
}  # fmt: skip


def test_all_of_them_are_there() -> None:
    assert {file.stem for file in SHIPPED} == EXPECTED


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_ablation_is_valid_has_five_seeds_and_a_smoke_preset(file: Path) -> None:
    plan = load_plan(file)
    assert plan.name == file.stem
    assert plan.seeds == (0, 1, 2, 3, 4)
    assert plan.pipeline(plan.arms[0], 0).pipeline.data.dataset.name == "digits"
    smoke = load_plan(file, preset="smoke")
    assert [arm.name for arm in smoke.arms] == [arm.name for arm in plan.arms]
    assert [smoke.flat_values(arm) for arm in smoke.arms] == [plan.flat_values(arm) for arm in plan.arms]
    assert len(smoke.seeds) == 2


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_ablation_moves_to_cifar10_as_its_comment_says(file: Path, tmp_path: Path) -> None:
    text = file.read_text()
    remedy = "base: ../pipelines/cifar10.yaml"
    comments = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert remedy in comments
    assert "on one CPU core" in comments
    lines = [line for line in text.splitlines() if "encoder.patch_size" not in line]
    moved = tmp_path / file.name
    moved.write_text("\n".join(lines).replace("\nbase: ../", f"\nbase: {ROOT}/").replace("digits.yaml", "cifar10.yaml"))
    plan = load_plan(moved)
    assert plan.pipeline(plan.arms[0], 0).pipeline.data.dataset.name == "cifar10"


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
            assert field.get("description"), key
