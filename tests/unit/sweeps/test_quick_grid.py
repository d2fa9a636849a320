"""A pipeline file and several values of some keys: the grid, and the ablation file that stands for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.config.shipped import shipped_files
from jepa_lab.config.yaml_text import read_yaml
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.choices import Choices
from jepa_lab.sweeps.plan import load_plan
from jepa_lab.sweeps.planned import Planned, plan_file
from jepa_lab.sweeps.quick_grid import is_pipeline, quick_grid, split_values
from tests.integration.pipelines import write_tiny
from tests.unit.sweeps.ablations import write_ablation


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a,b", ["a", "b"]),
        ("a", ["a"]),
        ("", [""]),
        ("a,", ["a", ""]),
        ("[1,2],[2,3]", ["[1,2]", "[2,3]"]),
        ("{name: x, n: [1, 2]}, y", ["{name: x, n: [1, 2]}", " y"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"a,\\",b",c', ['"a,\\",b"', "c"]),
        ("'it''s, so',c", ["'it''s, so'", "c"]),
        ("o'clock,b", ["o'clock", "b"]),
        ("{name: 'a,]'},b", ["{name: 'a,]'}", "b"]),
        ("[a, 'b,c'],d", ["[a, 'b,c']", "d"]),
        ("f(1,2),3", ["f(1,2)", "3"]),
        ("[1,2", ["[1,2"]),
        ("1],2", ["1]", "2"]),
    ],
)
def test_values_are_split_at_commas_outside_brackets_braces_and_quotes(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def planned(folder: Path, *overrides: str, choices: Choices | None = None, preset: str | None = None) -> Planned:
    return plan_file(write_tiny(folder), overrides, preset, choices or Choices())


def refusal(folder: Path, *overrides: str, choices: Choices | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        planned(folder, *overrides, choices=choices)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_every_combination_is_an_arm_and_the_first_values_are_the_baseline(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "masker=random,{name: multi_block, num_targets: 1, min_context_patches: 2}",
        "training.epochs=5",
        "predictor.size=half,quarter",
        choices=Choices(seeds=(3, 4), metric="probe/knn_validation_accuracy"),
    ).plan
    assert plan.baseline == "masker=random, predictor.size=half"
    assert [arm.name for arm in plan.arms] == [
        "masker=random, predictor.size=half",
        "masker=random, predictor.size=quarter",
        "masker=multi_block(num_targets=1, min_context_patches=2), predictor.size=half",
        "masker=multi_block(num_targets=1, min_context_patches=2), predictor.size=quarter",
    ]
    assert {loaded.pipeline.training.epochs for loaded in plan.pipelines.values()} == {5}
    assert (plan.seeds, plan.metric, plan.kind) == ((3, 4), "probe/knn_validation_accuracy", "grid")
    assert (plan.name, plan.swept_keys) == ("tiny-masker-predictor.size", ("masker", "predictor.size"))


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss=l2,smooth_l1", "training.epochs=10", "plugins=[]"),
        ("loss=l2,{name: smooth_l1, beta: 0.5}", "name=mine"),
        ("optimizer.learning_rate=1e-3,1e-4", "probe.additional=[]", "data.channel_mean=null"),
        ("masker.target_scale=[0.2,0.3],[0.15, 0.2]", "data.root='1e-3'", "data.dataset=image_folder"),
    ],
)
@pytest.mark.parametrize("choices", [Choices(), Choices(seeds=(1, 2))])
def test_the_ablation_file_is_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], choices: Choices
) -> None:
    for here in (tmp_path, tmp_path.parent, Path("/")):  # the pipeline is beside the sweeps, or far away
        monkeypatch.chdir(here)
        found = planned(tmp_path, *overrides, choices=choices)
        file = tmp_path / "sweeps" / found.plan.folder_name / "config.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found.text(tmp_path / "sweeps"))
        again = load_plan(file)
        assert again.to_record() == found.plan.to_record()
        assert again.digest == found.plan.digest


def test_with_a_preset_the_command_that_is_told_has_it_and_the_overrides_that_come_after_it(tmp_path: Path) -> None:
    found = planned(tmp_path, "loss=l2,smooth_l1", "training.epochs=7", preset="smoke")
    assert found.plan.pipelines[found.plan.baseline].pipeline.training.epochs == 7
    assert len(found.plan.seeds) == 2
    told = found.command(Path("sweeps/x/config.yaml"))
    assert told == "jepa-lab sweep sweeps/x/config.yaml training.epochs=7 --preset smoke"
    file = tmp_path / "config.yaml"
    file.write_text(found.text(tmp_path / "sweeps").replace("base: ", f"base: {tmp_path}/tiny.yaml  #"))
    assert load_plan(file, ["training.epochs=7"], "smoke").digest == found.plan.digest


def test_the_file_says_where_the_pipeline_is_seen_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = planned(tmp_path, "loss=l2,smooth_l1").text(Path("sweeps"))
    assert read_yaml(text, "text")[0]["base"] == "../../tiny.yaml"
    elsewhere = planned(tmp_path, "loss=l2,smooth_l1").text(tmp_path.parent / "sweeps")
    assert read_yaml(elsewhere, "text")[0]["base"] == str(tmp_path / "tiny.yaml")


def test_credentials_are_not_written(tmp_path: Path) -> None:
    uri = "tracking.uri=http://me:secret@example.org"
    text = planned(tmp_path, "loss=l2,smooth_l1", "tracking=mlflow", uri).text(tmp_path)
    assert "secret" not in text
    assert "# tracking.uri is left out, because it holds credentials; give it again." in text
    assert "tracking: mlflow" in text


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ((), "no key has several values to compare; give some, as in masker=multi_block,random"),
        (("loss=l2",), "no key has several values to compare"),
        (
            ("seed=0,1", "loss=l2,smooth_l1"),
            "override 'seed=0,1': the seeds of every arm are an option: give --seeds 0,1",
        ),
        (("seeds=0-1", "loss=l2,smooth_l1"), "seeds is not a key of a pipeline; give --seeds"),
        (("retries=1", "loss=l2,smooth_l1"), "retries is not a key of a pipeline; write an ablation file"),
        (("name=a,b", "loss=l2,smooth_l1"), "a sweep has one name"),
        (("loss=l2,",), "override 'loss=l2,': has an empty value between its commas"),
        (("loss=l2,smooth_l1", "loss=l2"), "override 'loss=l2,smooth_l1': loss is given twice"),
        (("loss=l2,l2",), "override 'loss=l2,l2': loss has the value l2 twice; remove one"),
        (("masker=multi_block,random", "masker.num_targets=2"), "goes into masker, which has several values here"),
        (("loss=l2,smooth_l2",), "override 'loss=l2,smooth_l2'"),
        (("data.split_seed=1,2",), "override 'data.split_seed=1,2': data.split_seed cannot differ between arms"),
        (("lossl2,smooth_l1",), "must have the form key=value"),
        (("loss=[l2,smooth_l1",), "is not valid YAML"),
        (("name=a/b", "loss=l2,smooth_l1"), "override 'name=a/b'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_names_its_place(
    tmp_path: Path, overrides: tuple[str, ...], problem: str
) -> None:
    assert problem in refusal(tmp_path, *overrides)


def test_options_of_an_ablation_file_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "loss=l2,smooth_l1", choices=Choices(arms=("a",))).startswith("--arms: ")
    assert refusal(tmp_path, "loss=l2,smooth_l1", choices=Choices(base=tmp_path)).startswith("--base: ")
    assert refusal(tmp_path, "loss=l2,smooth_l1", choices=Choices(metric="x")).startswith("--metric: ")


def test_for_an_ablation_file_overrides_mean_what_they_mean(tmp_path: Path) -> None:
    file = write_ablation(tmp_path, "one_at_a_time: {loss: [l2]}\n")
    assert not is_pipeline(file)
    with pytest.raises(ConfigError, match="override 'masker=multi_block,random'"):
        plan_file(file, ["masker=multi_block,random"])
    assert plan_file(file, ["training.epochs=2"]).plan.pipelines["baseline"].pipeline.training.epochs == 2


@pytest.mark.parametrize("stem", ["ö#! x", "...", "x" * 200])
def test_any_file_name_gives_a_legal_name(tmp_path: Path, stem: str) -> None:
    file = write_tiny(tmp_path).rename(tmp_path / f"{stem}.yaml")
    name = quick_grid(file, ["loss=l2,smooth_l1"], Choices()).ablation.name
    assert 1 <= len(name) <= 80
    assert name.isascii()


def test_the_written_file_names_the_preset_and_no_folder_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = shipped_files("pipeline")["digits"]
    text = plan_file(file, ["loss=l2,smooth_l1"], "smoke").text(Path("sweeps"))
    assert "# It stands for: jepa-lab sweep digits loss=l2,smooth_l1 --preset smoke" in text.splitlines()
    assert "base: digits" in text.splitlines()
    assert str(file.parent) not in text
    with pytest.raises(ConfigError, match=r"^digits is a pipeline.*`jepa-lab run digits`"):
        quick_grid(file, [], Choices())
