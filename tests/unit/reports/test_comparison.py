"""Which runs are a group, what is compared with what, and what is said about the rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jepa_lab.errors import ConfigError
from jepa_lab.reports.comparison import ComparedRuns, Question, compare
from jepa_lab.reports.long_form import csv_text
from jepa_lab.reports.table import build_table
from jepa_lab.runs.predictions import RunPredictions, SplitImages
from jepa_lab.tables.terminal import print_text_table
from tests.unit.tables.reading import WIDTHS, assert_readable, printed

METRIC = "probe/validation_accuracy"
TEST = "probe/test_accuracy"


def run(name: str, seed: int, value: float = 0.5, status: str = "FINISHED", **more: Any) -> dict[str, Any]:
    """A line of the frame; `digest` and the params given with `__` for the dot, tags given as `tag_<name>`."""
    params = {key.replace("__", "."): held for key, held in more.items() if not key.startswith("tag_")}
    tags = {key.removeprefix("tag_"): held for key, held in more.items() if key.startswith("tag_")}
    measured = {METRIC: value, TEST: value - 0.1} if status == "FINISHED" else {}
    return {
        "run_id": f"{name}-s{seed}".encode().hex(),
        "name": f"{name}-s{seed}",
        "status": status,
        "started": 100.0 * seed,
        "params.seed": str(seed),
        **{f"params.{key}": held for key, held in params.items()},
        **{f"tags.{key}": held for key, held in tags.items()},
        **{f"metrics.{key}": held for key, held in measured.items()},
    }


def ask(*runs: dict[str, Any], **question: Any) -> ComparedRuns:
    return compare(pd.DataFrame(list(runs)), Question(METRIC, True, **question), "a store")


def rows(compared: ComparedRuns) -> dict[str, Any]:
    return {row.name: row for row in build_table(compared.content).rows}


def notes(compared: ComparedRuns) -> str:
    return "\n".join(compared.as_text()[1])


def two_groups() -> list[dict[str, Any]]:
    values = {"wide": (0.70, 0.74, 0.75), "deep": (0.71, 0.78, 0.76)}
    return [
        run(name, seed, values[name][seed], predictor__size=name, loss__name="l2", tag_config_digest=name)
        for seed in range(3)
        for name in ("wide", "deep")
    ]


def test_a_group_that_collapsed_or_does_not_beat_its_random_encoders_is_named() -> None:
    control = "metrics.random_encoder/validation_accuracy"
    runs = [each | {control: 0.75, "metrics.collapsed": float("deep" in each["name"])} for each in two_groups()]
    told = notes(ask(*runs))
    assert "started as: wide in 3 of 3 trials, deep in 1 of 3 trials." in told
    assert "3 trials collapsed (features that hardly depend on the image" in told


def test_runs_that_differ_only_in_the_seed_are_a_line_with_paired_statistics() -> None:
    compared = ask(*two_groups())
    found = rows(compared)
    assert list(found) == ["wide", "deep"]
    wide, deep = np.array([0.70, 0.74, 0.75]), np.array([0.71, 0.78, 0.76])
    assert found["deep"].mean.mean == pytest.approx(deep.mean())
    low, high = stats.t.interval(0.95, 2, deep.mean(), stats.sem(deep))
    assert (found["deep"].mean.low, found["deep"].mean.high) == pytest.approx((low, high))
    assert found["deep"].comparison.difference.mean == pytest.approx((deep - wide).mean())
    assert found["deep"].holm_p == pytest.approx(stats.ttest_rel(deep, wide).pvalue)
    assert found["deep"].test.mean == pytest.approx(deep.mean() - 0.1)


def test_an_arm_whose_seeds_have_validation_splits_of_their_own_is_a_line_and_the_table_says_so() -> None:
    def tried(arm: str, seed: int, value: float, **more: str) -> dict[str, Any]:
        split = str(10 + seed)
        tags = {"role": "arm", "arm": arm, "sweep_folder": "/sweeps/a", "config_digest": f"{arm}{split}"}
        tags["is_baseline"] = str(arm == "plain").lower()
        return run(arm, seed, value, data__split_seed=split, **{f"tag_{name}": held for name, held in tags.items()})

    values = {"wide": (0.70, 0.74, 0.79), "plain": (0.70, 0.71, 0.72)}
    runs = [tried(arm, seed, value) for arm, found in values.items() for seed, value in enumerate(found)]
    compared = ask(*runs)
    assert compared.content.split_seeds == (10, 11, 12)
    assert {name: len(row.values) for name, row in rows(compared).items()} == {"plain": 3, "wide": 3}
    assert "over the seeds, each with a validation split of its own" in notes(compared)
    assert "NOT COMPARABLE" not in notes(compared)
    elsewhere = ask(*runs, tried("plain", 0, 0.7) | {"params.data.split_seed": "0", "tags.sweep_folder": "/sweeps/b"})
    assert elsewhere.content.split_seeds is None  # seed 0 has two splits here
    assert ask(*two_groups()).content.split_seeds is None


def test_only_the_keys_that_differ_between_groups_are_columns() -> None:
    first = run("a", 0, loss__name="l2", masker__name="random", encoder__depth="2", data__workers="0")
    second = run("b", 0, loss__name="l2", masker__name="block", encoder__depth="2", data__workers="1")
    third = run("b", 1, loss__name="l2", masker__name="block", encoder__depth="2", data__workers="2")
    for each, digest in ((first, "1"), (second, "2"), (third, "2")):
        each["tags.config_digest"] = digest
    compared = ask(first, second, third)
    assert compared.keys == ("masker",)  # data.workers also differs inside a group: it makes no difference
    table, _ = compared.as_text()
    assert [column.heading for column in table.columns[:3]] == ["runs", "masker", "n"]
    assert [row[1].text for row in table.rows] == ["random", "block"]


def test_a_component_is_one_column_with_the_parameters_that_differ_among_those_that_have_it() -> None:
    compared = ask(
        run("a", 0, loss="l2", loss__name="l2", predictor__depth="1"),
        run("b", 0, loss="smooth_l1", loss__name="smooth_l1", loss__beta="1.0", predictor__depth="1"),
    )
    assert compared.keys == ("loss",)
    assert [compared.values[group]["loss"] for group in "ab"] == ["l2", "smooth_l1"]
    compared = ask(
        run("a", 0, loss__name="l2"),
        run("b", 0, loss__name="smooth_l1", loss__beta="1.0"),
        run("c", 0, loss__name="smooth_l1", loss__beta="2.0"),
    )
    assert compared.keys == ("loss",)
    assert [compared.values[group]["loss"] for group in "abc"] == ["l2", "smooth_l1(beta=1.0)", "smooth_l1(beta=2.0)"]


@pytest.mark.parametrize("width", WIDTHS)
def test_runs_with_different_maskers_show_the_masker_and_only_the_parameters_it_has(width: int) -> None:
    # A sweep records every swept key for every arm: `null` where the arm's masker has no such parameter.
    blocks = {"masker__name": "multi_block", "masker__target_scale": "[0.15, 0.2]"}
    compared = ask(
        run("two", 0, masker="multi_block(num_targets=2)", masker__num_targets="2", **blocks),
        run("four", 0, masker="multi_block", masker__num_targets="4", **blocks),
        run("scattered", 0, masker="random", masker__name="random", masker__num_targets="null", masker__ratio="0.5"),
    )
    table, _ = compared.as_text()
    text = printed(width, lambda console: print_text_table(table, (), console))
    assert_readable(text, table, width)
    assert "null" not in text
    assert "absent" not in text
    shown = {row[0].text: row[1].text for row in table.rows}
    assert shown == {
        "baseline: two": "multi_block(num_targets=2)",
        "four": "multi_block(num_targets=4)",
        "scattered": "random",
    }


def test_a_parameter_that_is_null_for_one_of_two_runs_of_a_component_is_shown() -> None:
    compared = ask(
        run("a", 0, method__name="logistic", method__limit="null"),
        run("b", 0, method__name="logistic", method__limit="5"),
        run("c", 0, method__name="knn"),
    )
    assert [compared.values[group]["method"] for group in "abc"] == ["logistic(limit=null)", "logistic(limit=5)", "knn"]


def test_a_component_within_a_component_is_part_of_its_value() -> None:
    runs = [
        run(size + masker, 0, predictor__name=masker, predictor__size__name=size, predictor__size__depth="2")
        for size, masker in (("half", "vit"), ("full", "vit"), ("half", "mlp"))
    ]
    compared = ask(*runs)
    assert compared.keys == ("predictor",)
    assert {each["predictor"] for each in compared.values.values()} == {
        "vit(size.name=half)",
        "vit(size.name=full)",
        "mlp",
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_many_differing_keys_are_all_shown(width: int) -> None:
    keys = [f"section_{number}__a_parameter_name" for number in range(9)]
    table, notes = ask(*(run(name, 0, **dict.fromkeys(keys, name)) for name in ("a", "b"))).as_text()
    text = printed(width, lambda console: print_text_table(table, notes, console))
    assert_readable(text, table, width)


def test_runs_without_a_digest_are_grouped_by_all_params_but_the_seed() -> None:
    compared = ask(run("a", 0, lr="0.1"), run("other name", 1, lr="0.1"), run("b", 0, lr="0.2"))
    assert {name: row.mean.n for name, row in rows(compared).items()} == {"a": 2, "b": 1}


def test_a_digest_keeps_runs_together_whose_params_differ_in_what_changes_no_result() -> None:
    runs = [run("a", seed, data__workers=str(seed), tag_config_digest="1") for seed in range(3)]
    assert rows(ask(*runs))["a"].mean.n == 3


def test_groups_are_called_by_their_arm_and_never_alike() -> None:
    compared = ask(
        run("a", 0, tag_arm="small", tag_config_digest="1"),
        run("b", 0, tag_arm="small", tag_config_digest="2"),
        run("c-2", 0, tag_config_digest="3"),
    )
    assert set(compared.content.arms) == {"small", "small (2)", "c-2"}


def test_the_baseline_is_the_sweeps_else_the_oldest_group_else_the_one_asked_for() -> None:
    runs = two_groups()
    assert ask(*runs).content.baseline == "wide"
    assert ask(*runs, baseline="deep").content.arms == ("deep", "wide")
    assert ask(*runs, baseline="deep-s2").content.baseline == "deep"
    flagged = [{**each, "tags.is_baseline": str("deep" in each["name"]).lower()} for each in runs]
    compared = ask(*flagged)
    assert compared.content.baseline == "deep"
    assert "Baseline: deep, that of the sweep." in notes(compared)
    with pytest.raises(ConfigError, match="there is no group 'dep'; did you mean 'deep'"):
        ask(*runs, baseline="dep")


def test_groups_come_in_the_order_of_the_metric_behind_the_baseline() -> None:
    runs = [run(name, 0, value) for name, value in (("base", 0.5), ("low", 0.2), ("high", 0.9), ("middle", 0.6))]
    for number, each in enumerate(runs):
        each |= {"tags.config_digest": str(number), "started": float(number)}
    assert ask(*runs, run("none", 7, status="FAILED")).content.arms == ("base", "high", "middle", "low", "none")
    lower = compare(pd.DataFrame(runs), Question(METRIC, False), "a store")
    assert lower.content.arms == ("base", "low", "middle", "high")


def test_runs_that_did_not_finish_are_named_and_not_used() -> None:
    compared = ask(
        *two_groups(),
        run("wide", 3, status="RUNNING", predictor__size="wide", tag_config_digest="wide"),
        run("wide", 4, status="FAILED", predictor__size="wide", tag_config_digest="wide"),
        run("wide", 5, status="KILLED", predictor__size="wide", tag_config_digest="wide"),
    )
    assert (rows(compared)["wide"].mean.n, rows(compared)["wide"].planned) == (3, 6)
    said = notes(compared)
    assert "Not used, because they are not over: wide-s3." in said
    assert "1 trial failed: wide (seed 4)." in said
    assert "1 trial killed before the end: wide (seed 5)." in said


def test_numbers_of_a_run_that_did_not_finish_do_not_enter() -> None:
    running = {**run("wide", 2, tag_config_digest="wide"), "status": "RUNNING", f"metrics.{METRIC}": 9.0}
    compared = ask(*two_groups()[:4], running)
    assert rows(compared)["wide"].values == {0: 0.70, 1: 0.74}


def test_the_latest_of_two_runs_of_a_group_and_seed_counts_and_is_told() -> None:
    first, second = run("a", 0, 0.1, lr="1"), {**run("a", 0, 0.3, lr="1"), "run_id": "2", "name": "a-s0-2"}
    compared = ask(first, second)
    assert rows(compared)["a"].values == {0: 0.3}
    assert "1 repeated: a-s0." in notes(compared)


def test_by_a_key_averages_the_other_keys_for_each_seed_and_names_them() -> None:
    compared = ask(
        *(
            run(f"{masker}{lr}", seed, value, masker__name=masker, optimizer__lr=lr, tag_config_digest=masker + lr)
            for masker, lr, seed, value in [
                ("block", "1", 0, 0.5), ("block", "2", 0, 0.7), ("block", "1", 1, 0.6), ("block", "2", 1, 0.8),
                ("random", "1", 0, 0.3), ("random", "1", 1, 0.6),
            ]
        ),
        by="masker.name",
    )  # fmt: skip
    found = rows(compared)
    assert found["block"].values == pytest.approx({0: 0.6, 1: 0.7})
    assert found["random"].comparison.difference.mean == pytest.approx(-0.2)
    assert compared.keys == ("masker.name",)
    assert "these keys vary as well" in notes(compared)
    assert "optimizer.lr." in notes(compared)
    with pytest.raises(ConfigError, match=r"no run here has the param 'masker.nam'; did you mean 'masker.name'"):
        ask(*two_groups(), run("a", 9, masker__name="x"), by="masker.nam")


def test_a_run_without_the_key_is_in_a_group_of_its_own() -> None:
    compared = ask(run("a", 0, loss__beta="1"), run("b", 0), by="loss.beta")
    assert set(compared.content.arms) == {"1", "absent"}


def test_trials_by_which_a_search_chose_stay_apart_and_show_no_test_accuracy() -> None:
    runs = [
        run("point", 0, 0.9, lr="1", tag_role="search", tag_arm="winner", tag_config_digest="1"),
        run("final", 5, 0.7, lr="1", tag_role="final", tag_arm="winner", tag_config_digest="1"),
        run("base", 5, 0.6, lr="2", tag_role="final", tag_arm="base", tag_config_digest="2", tag_is_baseline="true"),
    ]
    compared = ask(*runs)
    found = rows(compared)
    assert set(found) == {"base", "winner", "winner (search)"}
    assert found["winner"].values == {5: 0.7}
    assert math.isnan(found["winner (search)"].test.mean)
    assert found["winner"].test.mean == pytest.approx(0.6)
    assert "optimistic" in notes(compared)
    assert "Points of a search, which chose by these validation images: winner (search), winner." in notes(compared)
    confirmed = run("base", 9, 0.5, lr="2", tag_role="confirm", tag_is_baseline="true", tag_config_digest="2")
    assert ask({**confirmed, "started": -1.0}, *runs[:2], {**runs[2], "started": 9e9}).content.baseline == "base"


def test_the_winner_of_a_search_has_no_p_by_the_images_that_chose_it_and_is_never_bold() -> None:
    values = {"base": [0.60, 0.61, 0.625], "winner": [0.80, 0.812, 0.82], "other": [0.50, 0.512, 0.52]}
    tags: dict[str, Any] = {"base": {"tag_is_baseline": "true"}, "winner": {"tag_role": "final"}, "other": {}}
    runs = [
        run(arm, 5 + place, value, lr=arm, tag_arm=arm, tag_config_digest=arm, **tags[arm])
        for arm, found in values.items()
        for place, value in enumerate(found)
    ]
    compared = ask(*runs)
    found = rows(compared)
    assert found["winner"].comparison.difference.mean == pytest.approx(0.199, abs=1e-3)
    assert math.isnan(found["winner"].holm_p)
    assert found["other"].holm_p < 0.01
    assert [name for name, row in found.items() if row.bold] == ["base"]
    assert "have no p and are never bold" in notes(compared)
    assert "adjusted by Holm over 2 arms; the 1 without a p count as well" in notes(compared)
    against_winner = rows(ask(*runs, baseline="winner"))
    assert all(math.isnan(row.holm_p) for row in against_winner.values())


def test_unknown_metrics_are_refused_with_the_nearest_name_that_may_be_chosen() -> None:
    with pytest.raises(ConfigError, match="did you mean 'probe/validation_accuracy'"):
        compare(pd.DataFrame(two_groups()), Question("probe/validation_acuracy", True), "")
    with pytest.raises(ConfigError) as caught:
        compare(pd.DataFrame(two_groups()), Question("nothing", True), "")
    assert TEST not in str(caught.value)
    unfinished = [run("a", 0, status="RUNNING"), {**run("b", 0), "status": "KILLED"}]
    with pytest.raises(ConfigError, match=r"none of these runs has finished \(1 RUNNING, 1 KILLED\)"):
        ask(*unfinished)
    without = {key: held for key, held in run("b", 0).items() if not key.startswith("metrics.")}
    with pytest.raises(ConfigError, match="no run that finished has the metric"):
        ask(*unfinished, without)


def test_the_csv_has_a_line_for_every_number_and_for_every_run_without_one() -> None:
    lines = csv_text(ask(*two_groups(), run("wide", 9, status="KILLED")).content).splitlines()
    assert sum(METRIC in line for line in lines) == 6
    assert any("KILLED" in line for line in lines)


def test_runs_that_name_no_seed_are_repetitions() -> None:
    runs = [{**run("a", seed, 0.1 * seed, lr="1"), "params.seed": math.nan} for seed in range(3)]
    assert rows(ask(*runs))["a"].mean.n == 3


def test_runs_whose_predictions_are_known_are_compared_over_seeds_and_images() -> None:
    random, kept, runs = np.random.default_rng(0), {}, []
    for name in ("wide", "deep"):
        for seed in range(3):
            right = random.random(50) < 0.7
            tensors = {"validation/positions": np.arange(50), "validation/labels": np.zeros(50, np.int64)}
            tensors["validation/trained/logistic"] = (~right).astype(np.int64)
            images = {"validation": SplitImages("a data set", "its pixels", 8)}
            metrics = {METRIC: "validation/trained/logistic"}
            kept[f"/runs/{name}-s{seed}"] = RunPredictions(("a", "b"), images, metrics, tensors)
            more = {"tag_run_folder": f"/runs/{name}-s{seed}", "tag_config_digest": name}
            runs.append(run(name, seed, float(right.mean()), predictor__size=name, **more))
    compared = ask(*runs)
    assert set(compared.run_folders) == set(kept)
    found = rows(compared.with_predictions(kept))["deep"].comparison
    assert found.crossed.num_images == 50
    assert found.over_images.high - found.over_images.low >= found.difference.high - found.difference.low
    assert "it is not known which run folders they are from" in notes(ask(*two_groups()))
