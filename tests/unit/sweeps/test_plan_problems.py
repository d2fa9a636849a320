"""Wrong ablation files: every problem with its place, its arm and its remedy, before anything starts."""

from __future__ import annotations

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jepa_lab.errors import JepaLabError
from jepa_lab.sweeps.plan import load_plan
from tests.integration.pipelines import TINY
from tests.unit.sweeps.ablations import refusal, write_ablation

ARMS = "arms: {a: {}, b: {masker: random}}\nbaseline: a\n"
SEARCH = "search: {loss: {type: categorical, choices: [l2, smooth_l1]}}\nbudget: {trials: 3}\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["example.yaml", "exactly one of arms, grid", "got none"]),
        (ARMS + SEARCH, ["example.yaml:4", "exactly one", "arms and search"]),
        ("arms: {a: {}}\n", ["example.yaml:2", "no baseline", "baseline: a"]),
        (ARMS.replace("baseline: a", "baseline: A"), ["example.yaml:3", "'A' is none of the arms", "known: a, b"]),
        (ARMS.replace("baseline: a", "baseline: 3"), ["example.yaml:3", "name of an arm", "got 3"]),
        (ARMS.replace("masker: random", "masker.num_target: 3"),
         ["example.yaml:2", "unknown key masker.num_target", "did you mean 'num_targets'?", "[arm 'b']"]),
        (ARMS.replace("masker: random", "maskr.num_targets: 3"), ["unknown key maskr", "'masker'", "[arm 'b']"]),
        (ARMS.replace("masker: random", "masker: randm"), ["example.yaml:2", "'randm'", "'random'", "[arm 'b']"]),
        (ARMS.replace("masker: random", "a..b: 3"), ["unknown key a", "[arm 'b']"]),
        (ARMS.replace("masker: random", "data.root.x: 3"), ["data.root must be text", "[arm 'b']"]),
        (ARMS.replace("masker: random", "masker.name: random"), ["would leave", "masker=random", "[arm 'b']"]),
        (ARMS.replace("masker: random", "masker.num_targets: 256"), ["example.yaml:2", "4x4 grid", "[arm 'b']"]),
        (ARMS.replace("masker: random", "training.device: cuda:77"), ["not on this machine", "[arm 'b']"]),
        (ARMS.replace("{masker: random}", "{}"), ["example.yaml:2", "'b' changes nothing"]),
        (ARMS.replace("{masker: random}", "{loss: smooth_l1}"), ["arm 'b' has the same configuration as arm 'a'"]),
        (ARMS.replace("a: {}", "a: {}, c: {masker: random}"), ["arm 'b' has the same configuration as arm 'c'"]),
        (ARMS.replace("masker: random", "seed: 3"), ["example.yaml:2", "seed cannot differ", "under seeds"]),
        (ARMS.replace("masker: random", "name: x"), ["name cannot differ", "named after the ablation"]),
        (ARMS.replace("masker: random", "tracking.experiment: x"), ["tracking.experiment cannot differ"]),
        (ARMS.replace("masker: random", "plugins: [x]"), ["plugins cannot differ"]),
        (ARMS.replace("masker: random", "training.stop_on_collapse: true"),
         ["example.yaml:2", "training.stop_on_collapse cannot differ between arms", "trained to the end"]),
        (ARMS + "overrides: {training.stop_on_collapse: true}\n",
         ["example.yaml:4", "cannot be set for all arms", "trained to the end", "remove it"]),
        (SEARCH + "overrides: {training.stop_on_collapse: false}\n",
         ["example.yaml:4", "cannot be set for all arms", "a point of a search is ended when it collapses"]),
        (ARMS.replace("masker: random", "data.split_seed: 1"), ["data.split_seed cannot differ", "paired by seed"]),
        (ARMS.replace("masker: random", "optimizer: {eps: 1e-7}"), ["is a section", "write optimizer.eps: 1e-07"]),
        (ARMS.replace("masker: random", "masker.num_targets: 3, masker: random"),
         ["masker would overwrite masker.num_targets", "put masker first"]),
        (ARMS.replace("b:", "'b\\u202e':").replace("'", '"'), ["without control characters", "rename"]),
        (ARMS.replace("b:", f"{'b' * 101}:"), ["1 to 100 characters"]),
        (ARMS.replace("b:", "' ':"), ["1 to 100 characters"]),
        (ARMS + "seeds: [1, 2, 1]\n", ["example.yaml:4", "seeds has 1 2 times"]),
        (ARMS + "seeds: [0, 1]\nsplit_seeds: [0, 1, 2]\n", ["example.yaml:5", "for each of the 2 seeds, got 3"]),
        (ARMS + "seeds: [0, 1]\nsplit_seeds: [4, 4]\n", ["example.yaml:5", "split_seeds has 4 2 times", "give each"]),
        (ARMS + "seeds: [0]\nsplit_seeds: [-1]\n", ["example.yaml:5", "split_seeds.0", "got -1"]),
        (ARMS + "seeds: [0, 1]\nsplit_seeds: [0, 1]\noverrides: {data.validation_split: folder}\n",
         ["split_seeds"]),
        (SEARCH + "split_seeds: [0, 1, 2, 3, 4]\n", ["example.yaml:", "split_seeds are for tables"]),
        (ARMS + "seeds: []\n", ["example.yaml:4", "seeds is empty"]),
        (ARMS + "seeds: [-1]\n", ["example.yaml:4", "seeds.0", "got -1"]),
        (ARMS + "metric: probe/validation_acuracy\n", ["example.yaml:4", "did you mean 'probe/validation_accuracy'?"]),
        (ARMS + "metric: probe/test_accuracy\n", ["example.yaml:4", "test split", "scored once"]),
        (ARMS + "metric: probe/knn_test_accuracy\n", ["test split"]),
        (ARMS + "metric: random_encoder/validation_accuracy\n", ["that of a control"]),
        (ARMS + "direction: up\n", ["example.yaml:4", "direction", "'up'"]),
        (ARMS + "pruner: median\n", ["example.yaml:4", "pruner belongs to search", "never pruned"]),
        (ARMS + "budget: {trials: 3}\n", ["example.yaml:4", "budget belongs to search"]),
        (ARMS + "seads: [1]\n", ["example.yaml:4", "unknown key seads", "did you mean 'seeds'?"]),
        (ARMS + "overrides: {seed: 3}\n", ["example.yaml:4", "seed cannot be set for all arms"]),
        (ARMS + "overrides: {training.epochs: 0}\n", ["example.yaml:4", "training.epochs", "got 0"]),
        (ARMS + "name: a/b\n", ["example.yaml:4", "name", "a/b"]),
        ("grid: {masker: [random], loss: [l2, smooth_l1]}\n", ["example.yaml:2", "no baseline", "masker: random"]),
        ("grid: {masker: [random]}\nbaseline: {masker: radom}\n", ["example.yaml:3", "masker: radom", "none of its"]),
        ("grid: {masker: [random]}\nbaseline: {maskr: random}\n", ["example.yaml:3", "not a key of grid", "'masker'"]),
        ("grid: {masker: [random], loss: [l2]}\nbaseline: {masker: random}\n", ["no value for loss", "l2"]),
        ("grid: {masker: []}\nbaseline: {}\n", ["grid.masker has no values"]),
        ("grid: {loss: [l2]}\nbaseline: {loss: l2}\noverrides: {loss.over_features: mean}\n",
         ["example.yaml:4", "loss.over_features has no effect"]),
        (f"grid: {{{', '.join(f'k{n}: [1, 2, 3, 4, 5]' for n in range(6))}}}\nbaseline: {{}}\n",
         ["15,625 arms and 5 seeds, that is 78,125 trials", "at most 10,000"]),
        ("one_at_a_time: {masker: [random, random]}\n", ["example.yaml:2", "random twice"]),
        ("one_at_a_time: {loss: [smooth_l1]}\n", ["'loss=smooth_l1' has the same configuration as arm 'baseline'"]),
        ("one_at_a_time: {loss: [l2]}\nbaseline: x\n", ["example.yaml:3", "base with its overrides", "remove"]),
        ("one_at_a_time:\n  masker:\n    - random\n    - {name: multi_block,\n       num_targts: 3}\n",
         ["example.yaml:6: unknown key masker.num_targts"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_place_value_and_remedy(tmp_path, text: str, parts: list[str]) -> None:
    lines = refusal(tmp_path, text)
    assert len(lines) == 1, lines
    for part in parts:
        assert part in lines[0], lines


def test_every_problem_of_every_arm_is_told_at_once_and_only_once(tmp_path) -> None:
    text = (
        "one_at_a_time: {masker.num_target: [1, 2, 3, 4, 5], loss: [l3], probe.layers: [last_four]}\n"
        "seeds: [1, 1]\nmetric: nonsense\n"
    )
    lines = refusal(tmp_path, text)
    assert len(lines) == 5
    unknown = next(line for line in lines if "num_target" in line)
    assert unknown.endswith("[arms 'masker.num_target=1', 'masker.num_target=2', 'masker.num_target=3' and 2 more]"), (
        unknown
    )


def test_a_problem_of_all_arms_is_not_blamed_on_one(tmp_path) -> None:
    lines = refusal(tmp_path, ARMS, "training.epochs=0")
    assert len(lines) == 1
    assert lines[0].startswith("override 'training.epochs=0': training.epochs must be")
    assert "[arm" not in lines[0]


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("masker=single_block", "masker would be for all arms, but masker is what this ablation changes"),
        ("masker.num_targets=3", "masker.num_targets would be for all arms, but masker is"),
        ("seed=3", "seed cannot be set for all arms"),
        ("name=x", "name cannot be set for all arms"),
        ("training.stop_on_collapse=true", "training.stop_on_collapse cannot be set for all arms: what enters a table"),
        ("seeds=[3]", "seeds is a key of the ablation"),
        ("training.epoch=3", "unknown key training.epoch; did you mean 'epochs'?"),
        ("training.epochs", "key=value"),
    ],
)  # fmt: skip
def test_an_override_that_is_not_for_all_arms_is_refused(tmp_path, override: str, part: str) -> None:
    lines = refusal(tmp_path, ARMS, override)
    assert any(line.startswith(f"override {override!r}") and part in line for line in lines), lines


def test_a_base_that_is_no_file_and_an_unknown_preset_are_named(tmp_path) -> None:
    file = tmp_path / "lonely.yaml"
    file.write_text("\nbase: nowhere.yaml\n" + ARMS)
    with pytest.raises(JepaLabError, match=r"lonely.yaml:2: base names .*nowhere.yaml, which is not a file"):
        load_plan(file)
    assert "did you mean 'smoke'" in refusal(tmp_path, ARMS, preset="smok")[0]


def test_a_pipeline_given_as_an_ablation_is_told_so(tmp_path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    with pytest.raises(JepaLabError, match=r"tiny\.yaml:\d+: this is a pipeline; use `jepa-lab run"):
        load_plan(file)


def test_a_problem_of_the_base_keeps_its_own_line(tmp_path) -> None:
    file = write_ablation(tmp_path, ARMS)
    (tmp_path / "tiny.yaml").write_text(TINY.replace("patch_size", "patch_sise"))
    with pytest.raises(JepaLabError) as caught:
        load_plan(file)
    assert f"{tmp_path}/tiny.yaml:7: unknown key encoder.patch_sise" in str(caught.value)


_SCALARS = st.none() | st.booleans() | st.integers(-3, 5) | st.sampled_from(["random", "half", "a", ".nan", "'x: y'"])
_KEYS = st.sampled_from(["masker", "masker.num_targets", "loss", "training.epochs", "seed", "x.y", "optimizer", ""])
_TEXT = st.text(string.printable, max_size=8)


def _yaml(value: object) -> str:
    """Flow YAML of plain data."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_yaml(held)}" for key, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=5
)
_SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "arms": st.dictionaries(
            st.sampled_from("abc"), st.dictionaries(_KEYS, _VALUES, max_size=2) | _VALUES, max_size=3
        ),
        "grid": st.dictionaries(_KEYS, st.lists(_VALUES, max_size=3) | _VALUES, max_size=2),
        "one_at_a_time": st.dictionaries(_KEYS, st.lists(_VALUES, max_size=2), max_size=2),
        "search": st.dictionaries(
            _KEYS,
            st.fixed_dictionaries(
                {"type": st.sampled_from(["float", "int", "categorical", "x"])},
                optional={"low": _VALUES, "high": _VALUES, "choices": _VALUES, "when": _VALUES, "step": _VALUES},
            ),
            max_size=2,
        ),
        "baseline": _VALUES,
        "overrides": st.dictionaries(_KEYS, _VALUES, max_size=2),
        "seeds": _VALUES,
        "split_seeds": _VALUES,
        "budget": _VALUES,
    },
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sections=_SECTIONS)
def test_whatever_the_file_says_the_answer_is_a_plan_or_a_message(tmp_path, sections: dict) -> None:
    file = write_ablation(tmp_path, "".join(f"{key}: {_yaml(value)}\n" for key, value in sections.items()))
    try:
        load_plan(file)
    except JepaLabError as error:
        refused = error
    else:
        return
    assert refused.exit_code == 2
    assert str(refused)
