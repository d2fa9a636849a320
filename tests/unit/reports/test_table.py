"""The lines of the table and the sentences below it."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.detection import minimum_detectable_effect
from jepa_lab.reports.numbers import count, duration, p_value, scale_for
from jepa_lab.reports.statistics import Interval, mean_interval
from jepa_lab.reports.table import Table, build_table
from tests.unit.reports.frames import METRIC, make_content, make_search, set_trial


def table_of(content: ReportInput) -> Table:
    """As a report makes it."""
    return build_table(cleaned(content))


def texts(table: Table) -> list[list[str]]:
    """The cells' texts, line by line."""
    return [[cell.text for cell in row] for row in table.as_text().rows]


def footnotes(content: ReportInput) -> str:
    """All footnotes in one text."""
    return "\n".join(table_of(content).footnotes)


def test_the_baseline_comes_first_then_the_controls_then_the_arms_in_the_order_of_the_plan() -> None:
    rows = table_of(make_content(("base", "zebra", "ant"))).rows
    assert [row.name for row in rows] == ["base", "random encoder", "raw pixels", "zebra", "ant"]
    assert [row.role for row in rows] == ["baseline", "control", "control", "arm", "arm"]


def test_a_line_holds_mean_difference_and_p_as_scipy_computes_them() -> None:
    content = make_content()
    base, wide = (content.trials[content.trials["arm"] == arm][METRIC].to_numpy() for arm in ("base", "wide"))
    other = content.trials[content.trials["arm"] == "random masks"][METRIC].to_numpy()
    line = texts(table_of(content))[3]
    test = stats.ttest_rel(wide, base)
    low, high = test.confidence_interval(0.95)
    mean_low, mean_high = stats.t.interval(0.95, 4, wide.mean(), stats.sem(wide))
    assert line[:3] == ["wide", "predictor.embed_dim=128, masker.name=random", "5/5"]
    assert line[3] == f"{100 * wide.mean():.2f} [{100 * mean_low:.2f}, {100 * mean_high:.2f}]"
    assert line[4] == f"{100 * (wide - base).mean():+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
    holm = max(test.pvalue, min(1, 2 * stats.ttest_rel(other, base).pvalue))
    assert line[5] == f"{holm:.3f}"
    assert line[7:9] == ["1.65M", "92 s"]


def test_a_metric_that_no_probe_has_stands_beside_what_the_probe_measured_on_the_test_split() -> None:
    content = make_content(metric="rankme_end")
    assert content.metric_on_test == "probe/test_accuracy"
    renamed = content.trials.rename(columns={"probe/test_accuracy": "probe/test_mean_iou"})
    content = dataclasses.replace(content, trials=renamed)
    assert content.metric_on_test == "probe/test_mean_iou"
    row = table_of(content).rows[0]
    mine = renamed[renamed["arm"] == row.name]
    assert row.test.mean == pytest.approx(mine["probe/test_mean_iou"].mean())


def test_controls_are_those_of_the_baseline_s_trials_and_never_bold_or_tested() -> None:
    content = make_content()
    content.trials.loc[content.trials["arm"] != "base", "random_encoder/validation_accuracy"] = 0.99
    control = table_of(content).rows[1]
    assert control.mean.mean == pytest.approx(0.6, abs=0.01)
    assert math.isnan(control.holm_p)
    assert not control.bold
    best = content.trials.assign(**{"raw_pixels/validation_accuracy": 0.999})
    assert not any(
        row.bold for row in table_of(dataclasses.replace(content, trials=best)).rows if row.role == "control"
    )


def test_test_accuracy_has_a_column_and_decides_nothing() -> None:
    content = make_content()
    turned = content.trials.assign(**{"probe/test_accuracy": -content.trials["probe/test_accuracy"]})
    before, after = table_of(content), table_of(dataclasses.replace(content, trials=turned))
    assert [row.name for row in before.rows] == [row.name for row in after.rows]
    assert [row.bold for row in before.rows] == [row.bold for row in after.rows]
    assert [row[5] for row in texts(before)] == [row[5] for row in texts(after)]
    assert before.as_text().columns[6].heading == "probe/test_accuracy"
    assert texts(before)[0][6].startswith("78.78 [")


def test_the_best_and_its_ties_are_bold() -> None:
    bold = {
        row.name for row in table_of(make_content(("base", "good", "same"), effects=(0.0, 0.05, 0.05))).rows if row.bold
    }
    assert bold == {"good", "same"}


def test_where_lower_is_better_the_lowest_arm_is_bold() -> None:
    content = make_content(effects=(0.0, 0.05, -0.05), higher_is_better=False)
    assert [row.name for row in table_of(content).rows if row.bold] == ["random masks"]


def test_a_failed_a_pruned_and_a_killed_trial_are_counted_and_named() -> None:
    content = set_trial(make_content(), "wide", 1, status="FAILED", error="out of memory")
    content = set_trial(content, "random masks", 2, status="PRUNED")
    content = set_trial(content, "random masks", 3, status="KILLED")
    notes = footnotes(content)
    assert "1 trial failed: wide (seed 1)." in notes
    assert "1 trial pruned (ended early because of its intermediate values): random masks (seed 2)." in notes
    assert "1 trial killed before the end: random masks (seed 3)." in notes
    assert "fewer: wide, random masks" in notes
    assert [row[2] for row in texts(table_of(content))] == ["5/5", "5/5", "5/5", "4/5", "3/5"]


def test_a_pruned_trial_s_number_is_not_in_the_mean() -> None:
    content = set_trial(make_content(), "wide", 1, status="PRUNED", **{METRIC: 0.1})
    assert table_of(content).rows[3].mean.low > 0.7


@pytest.mark.parametrize("mark", [{"status": "COLLAPSED"}, {"collapsed": 1.0}])
def test_a_collapsed_trial_counts_in_the_mean_and_is_named(mark: dict[str, object]) -> None:
    content = set_trial(make_content(), "wide", 1, **mark)
    assert len(table_of(content).rows[3].values) == 5
    notes = footnotes(content)
    assert "1 trial collapsed" in notes
    assert "wide (seed 1). With a result, and therefore in the means: 1." in notes


def test_trials_that_ended_with_a_warning_of_collapse_are_counted_and_named() -> None:
    content = set_trial(make_content(), "wide", 1, collapse_warned=1.0)
    content = set_trial(set_trial(content, "wide", 2, collapse_warned=1.0), "base", 0, collapsed=1.0)
    notes = footnotes(content)
    assert "2 trials ended with a warning of collapse, which the log of each explains: wide (seeds 1, 2)." in notes
    assert "1 trial collapsed (features that hardly depend on the image" in notes


def test_arms_whose_encoders_do_not_beat_their_random_ones_are_counted() -> None:
    content = make_content(effects=(0.0, 0.0, -0.3))  # the random encoders have about 60%
    content = set_trial(content, "wide", 1, **{METRIC: 0.61, "random_encoder/validation_accuracy": 0.61})
    content = set_trial(content, "random masks", 4, status="FAILED")
    notes = footnotes(content)
    assert "NOT BETTER THAN RANDOM: by probe/validation_accuracy" in notes
    assert "started as: wide in 1 of 5 trials, random masks in 4 of 4 trials." in notes


def test_arms_that_beat_their_random_encoders_are_not_accused_and_the_test_split_is_not_asked() -> None:
    content = make_content()
    content.trials["random_encoder/test_accuracy"] = 0.99
    assert "NOT BETTER" not in footnotes(content)
    without = dataclasses.replace(content, trials=content.trials.drop(columns="random_encoder/validation_accuracy"))
    assert "NOT BETTER" not in footnotes(without)


def test_where_the_metric_is_no_accuracy_the_probe_tells_whether_anything_was_learned() -> None:
    content = set_trial(make_content(metric="rankme_end"), "wide", 0, **{METRIC: 0.5})
    notes = footnotes(content)
    assert "NOT BETTER THAN RANDOM: by probe/validation_accuracy" in notes
    assert "wide in 1 of 5 trials." in notes


def test_where_the_probe_measures_a_mean_iou_that_tells_whether_anything_was_learned() -> None:
    content = make_content(metric="rankme_end")
    names = {name: name.replace("accuracy", "mean_iou") for name in content.trials if "accuracy" in name}
    trials = content.trials.rename(columns=names)
    content = set_trial(dataclasses.replace(content, trials=trials), "wide", 0, **{names[METRIC]: 0.5})
    notes = footnotes(content)
    assert "NOT BETTER THAN RANDOM: by probe/validation_mean_iou" in notes
    assert "wide in 1 of 5 trials." in notes


def test_a_metric_of_another_probe_is_held_against_that_probe_s_control() -> None:
    metric = "probe/knn_validation_accuracy"
    trials = make_content().trials.assign(**{metric: 0.7, "random_encoder/knn_validation_accuracy": 0.71})
    notes = footnotes(make_content(metric=metric, trials=trials))
    assert f"by {metric}, these trained encoders" in notes
    assert "base in 5 of 5 trials, wide in 5 of 5 trials, random masks in 5 of 5 trials." in notes


def test_points_of_a_search_that_were_ended_early_are_counted_by_their_reason() -> None:
    content = make_search(20)
    chosen = (content.trials["role"] == "search") & content.trials["number"].isin([1, 5])
    content.trials.loc[chosen, "status"] = "COLLAPSED"
    content.trials.loc[chosen, METRIC] = np.nan
    notes = footnotes(content)
    assert "Of the 20 points of the search, 2 collapsed, were ended then, and count as pruned: 1, 5." in notes
    assert "Of the 20 points of the search, 3 were pruned because of their intermediate values: 3, 10, 17." in notes
    assert "trials collapsed" not in notes


def test_a_later_try_replaces_a_failed_one_and_the_failure_is_still_counted() -> None:
    content = set_trial(make_content(), "wide", 1, status="FAILED")
    again = make_content().trials.query("arm == 'wide' and seed == 1").assign(number=99)
    content = dataclasses.replace(content, trials=pd.concat([content.trials, again], ignore_index=True))
    assert len(table_of(content).rows[3].values) == 5
    assert "1 trial failed: wide (seed 1)." in footnotes(content)


def test_of_two_results_for_one_seed_the_later_one_counts() -> None:
    content = make_content()
    again = content.trials.query("arm == 'wide' and seed == 1").assign(number=99, **{METRIC: 0.123})
    content = dataclasses.replace(content, trials=pd.concat([content.trials, again], ignore_index=True))
    assert table_of(content).rows[3].values[1] == 0.123


def test_an_unfinished_sweep_says_that_its_table_is_not_final() -> None:
    content = set_trial(set_trial(make_content(), "wide", 3, status="RUNNING"), "wide", 4, status="WAITING")
    assert "2 trials still running or waiting: this table is not final." in footnotes(content)


def test_an_arm_without_any_result_keeps_its_line() -> None:
    content = make_content()
    for seed in range(5):
        content = set_trial(content, "wide", seed, status="FAILED")
    line = texts(table_of(content))[3]
    assert line[2:] == ["0/5", "–", "–", "–", "–", "–", "–", "–"]
    assert "5 trials failed: wide (seeds 0, 1, 2, 3, 4)." in footnotes(content)
    assert "adjusted by Holm over 2 arms; the 1 without a p count as well." in footnotes(content)


def test_without_the_baseline_s_results_nothing_is_compared_and_the_table_says_so() -> None:
    content = make_content()
    for seed in range(5):
        content = set_trial(content, "base", seed, status="FAILED")
    assert texts(table_of(content))[3][4:6] == ["–", "–"]
    assert "The baseline has no result: no arm can be compared with it." in footnotes(content)


def test_without_any_trial_the_table_still_has_its_lines() -> None:
    content = make_content()
    empty = dataclasses.replace(content, trials=content.trials.iloc[:0], curves=content.curves.iloc[:0])
    table = table_of(empty)
    assert [row.name for row in table.rows if row.role != "control"] == ["base", "wide", "random masks"]
    assert "No arm has two trials with a result yet" in "\n".join(table.footnotes)


def test_one_seed_gives_no_intervals_no_p_no_bold_and_says_why() -> None:
    content = make_content(num_seeds=1)
    table = table_of(content)
    assert not any(row.bold for row in table.rows)
    assert "[" not in "".join(texts(table)[3])
    assert texts(table)[3][4].startswith("+")
    assert any(note.startswith("One seed: there are no intervals and no p") for note in table.footnotes)
    assert "Minimum detectable effect" not in "\n".join(table.footnotes)


def test_unlabelled_images_have_no_metric_and_the_table_says_so() -> None:
    content = make_content()
    labels = [name for name in content.trials if "accuracy" in name]
    table = table_of(dataclasses.replace(content, trials=content.trials.drop(columns=labels)))
    assert [row.role for row in table.rows] == ["baseline", "arm", "arm"]
    assert "No trial has a probe/validation_accuracy" in "\n".join(table.footnotes)
    assert texts(table)[0][9] == "9.88"  # RankMe needs no labels


def test_numbers_that_are_not_finite_are_missing_ones() -> None:
    content = set_trial(set_trial(make_content(), "wide", 0, **{METRIC: np.nan}), "wide", 1, **{METRIC: np.inf})
    assert sorted(table_of(content).rows[3].values) == [2, 3, 4]
    assert "2 trials ended without a probe/validation_accuracy: wide (seeds 0, 1)." in footnotes(content)


def test_equal_values_are_all_bold_and_have_no_detectable_effect() -> None:
    content = make_content()
    table = table_of(dataclasses.replace(content, trials=content.trials.assign(**{METRIC: 0.5})))
    assert [row.bold for row in table.rows if row.role != "control"] == [True] * 3
    assert texts(table)[3][3:6] == ["50.00", "0.00", "1.00"]
    assert "no minimum detectable effect" in "\n".join(table.footnotes)
    assert "No arm has two trials" not in "\n".join(table.footnotes)


def test_numbers_that_are_the_same_with_every_seed_have_no_interval() -> None:
    # Raw pixels do not depend on the seed: an interval without width would be a claim.
    assert texts(table_of(make_content()))[2][3] == "70.00"
    assert "Numbers that are the same with every seed have no interval." in footnotes(make_content())


def test_the_detectable_effect_is_judged_by_the_arms_whose_differences_spread() -> None:
    content = make_content(("base", "same", "noisy", "equal"), 5)
    of_base = content.trials[content.trials["arm"] == "base"].set_index("seed")[METRIC]
    trials = content.trials.copy()
    for arm in ("same", "equal"):
        trials.loc[trials["arm"] == arm, METRIC] = of_base.to_numpy()
    notes = footnotes(dataclasses.replace(content, trials=trials))
    assert re.search(r"Minimum detectable effect: [\d.]+ points, but anything from [\d.]+ to [\d.]+ points", notes)
    assert "the same with every seed for same, equal" in notes


def test_the_detectable_effect_and_its_range_are_those_of_the_planned_family() -> None:
    content = make_content(("base", "wide", "failed"), 5)
    for seed in range(5):
        content = set_trial(content, "failed", seed, status="FAILED")
    base, wide = (content.trials[content.trials["arm"] == arm][METRIC].to_numpy() for arm in ("base", "wide"))
    sd = 100 * (wide - base).std(ddof=1)
    effect = minimum_detectable_effect(sd, 5, 2)
    low, high = (effect * math.sqrt(4 / stats.chi2.ppf(share, 4)) for share in (0.975, 0.025))
    note = next(each for each in table_of(content).footnotes if each.startswith("Minimum"))
    assert f": {effect:.2f} points, but anything from {low:.2f} to {high:.2f} points" in note
    assert "Holm over 2 arms" in note


def test_no_detectable_difference_of_accuracies_is_larger_than_there_can_be() -> None:
    content = make_content(("base", "wide"), 2)
    trials = content.trials.copy()
    trials.loc[trials["arm"] == "wide", METRIC] = [0.1, 0.9]
    note = next(
        each for each in table_of(dataclasses.replace(content, trials=trials)).footnotes if each.startswith("Minimum")
    )
    assert re.search(r"to more than 100\.\d+ points fits these data", note)


def test_a_difference_over_surviving_seeds_says_that_it_is_conditional_on_survival() -> None:
    content = set_trial(make_content(), "wide", 1, status="FAILED")
    assert "Conditional on survival: the differences of wide (4 of 5 seeds)." in footnotes(content)
    of_baseline = set_trial(content, "base", 2, status="KILLED")
    assert "differences of wide (3 of 5 seeds), random masks (4 of 5 seeds)." in footnotes(of_baseline)
    unmeasured = set_trial(make_content(), "wide", 1, **{METRIC: math.nan})
    assert "differences of wide (4 of 5 seeds)." in footnotes(unmeasured)


def test_a_seed_that_is_still_to_come_or_was_retried_with_success_is_not_lost() -> None:
    assert "survival" not in footnotes(make_content())
    assert "survival" not in footnotes(set_trial(make_content(), "wide", 1, status="WAITING"))
    retried = set_trial(make_content(), "wide", 1, status="FAILED")
    again = make_content().trials.query("arm == 'wide' and seed == 1").assign(number=99)
    retried = dataclasses.replace(retried, trials=pd.concat([retried.trials, again], ignore_index=True))
    assert "survival" not in footnotes(retried)


def test_beside_no_difference_found_stands_what_difference_is_ruled_out() -> None:
    content = make_content(("base", "better", "same"), effects=(0.0, 0.05, 0.0))
    base, same = (content.trials[content.trials["arm"] == arm][METRIC].to_numpy() for arm in ("base", "same"))
    low, high = stats.ttest_rel(same, base).confidence_interval(0.95)
    note = next(each for each in table_of(content).footnotes if each.startswith("No difference found"))
    assert f"beyond these margins: same within {100 * max(-low, high):.2f} points (two one-sided tests" in note
    assert "at 2.5% each, the level of the 95% interval" in note
    assert "better" not in note


def test_nothing_is_ruled_out_where_there_is_no_interval_or_a_difference_was_found() -> None:
    assert "No difference found" not in footnotes(make_content(num_seeds=1))
    assert "No difference found" not in footnotes(make_content(("base", "better"), effects=(0.0, 0.05)))
    equal = make_content()
    assert "No difference found" not in footnotes(
        dataclasses.replace(equal, trials=equal.trials.assign(**{METRIC: 0.5}))
    )


def test_of_many_arms_without_a_difference_all_are_covered_by_a_margin() -> None:
    arms = ("base", *(f"arm {number}" for number in range(30)))
    table = table_of(make_content(arms, effects=(0.0,) * 31))
    note = next(each for each in table.footnotes if each.startswith("No difference found"))
    ends = [
        abs(end) for row in table.rows[15:] for end in (row.comparison.difference.low, row.comparison.difference.high)
    ]
    assert f"18 more arms within {100 * max(ends):.2f} points" in note


def test_a_difference_without_spread_is_pointed_out() -> None:
    content = make_content()
    values = content.trials["arm"].map({"base": 0.5, "wide": 0.75, "random masks": 0.5})
    assert "there is no spread to judge by" in footnotes(
        dataclasses.replace(content, trials=content.trials.assign(**{METRIC: values}))
    )


def test_the_footnotes_say_what_the_brackets_the_bold_and_the_p_are() -> None:
    notes = footnotes(make_content())
    assert "95% intervals of Student's t over the seeds, on these very images, not standard deviations" in notes
    assert "paired by seed. They are per comparison" in notes
    assert "adjusted by Holm over 2 arms" in notes
    assert "not adjusted, by arm: wide: 0.0625; random masks: 0.0625. It cannot be lower than 0.0625 with 5" in notes
    assert "is found with a power of 0.8 (5 seeds" in notes
    assert "loses its bold in at most 5% of tables" in notes
    assert "all pairs of the 3 planned arms" in notes
    assert "the best epoch by the online probe is not used" in notes
    assert "cannot be lower than 0.25 with 3 seeds" in footnotes(make_content(num_seeds=3))


def test_a_metric_of_the_test_split_is_warned_about() -> None:
    assert "choosing by it makes every number here optimistic" in footnotes(make_content(metric="probe/test_accuracy"))


def test_the_winner_of_a_search_meets_the_baseline_on_its_final_trials_alone() -> None:
    rows = table_of(make_search()).rows
    assert [row.name for row in rows] == ["base", "random encoder", "raw pixels", "winner"]
    assert [len(row.values) for row in rows] == [3, 3, 3, 3]
    assert "the winner was chosen on the same validation images" in footnotes(make_search())


def search_with_test_numbers(base: list[float], winner: list[float], **changes: Any) -> ReportInput:
    """A search whose winner and baseline have these numbers on the test split, seeds 0, 1, 2."""
    content = make_search(**changes)
    trials = content.trials.copy()
    for arm, found in (("base", base), ("winner", winner)):
        trials.loc[(trials["arm"] == arm) & (trials["role"] == "final"), "probe/test_accuracy"] = found
    return dataclasses.replace(content, trials=trials)


def test_the_winner_of_a_search_is_compared_on_the_test_split_and_its_validation_difference_is_called_optimistic() -> (
    None
):
    base, winner = [0.70, 0.72, 0.71], [0.71, 0.74, 0.712]
    content = search_with_test_numbers(base, winner)
    table = table_of(content)
    assert [column.heading for column in table.as_text().columns[3:8]] == [
        "probe/test_accuracy", "test difference", "p", METRIC, "optimistic difference",
    ]  # fmt: skip
    expected = stats.ttest_rel(winner, base)
    low, high = (100 * end for end in expected.confidence_interval(0.95))
    line = texts(table)[3]
    assert line[7].startswith("+2.11 [")  # on validation
    assert line[4] == f"+1.1 [{low:+.1f}, {high:+.1f}]".replace("-", "−")
    assert line[5] == f"{expected.pvalue:.2f}"
    notes = "\n".join(table.footnotes)
    assert "is not evidence and has no p" in notes
    assert "test against the baseline by probe/test_accuracy, Student's paired t over the seeds" in notes
    assert f"winner within {max(abs(low), abs(high)):.1f} points" in notes


def test_in_a_search_the_test_split_decides_what_is_bold() -> None:
    # On validation the winner is better by 2 points with every seed.
    rows = table_of(search_with_test_numbers([0.8, 0.81, 0.82], [0.7, 0.712, 0.719])).rows
    assert [row.bold for row in rows] == [True, False, False, False]
    table = table_of(search_with_test_numbers([0.7, 0.712, 0.719], [0.8, 0.81, 0.82])).as_text()
    assert [[cell.bold for cell in row].index(True) for row in table.rows if any(cell.bold for cell in row)] == [3]
    of_loss = search_with_test_numbers([0.7, 0.712, 0.719], [0.8, 0.81, 0.82])
    of_loss = dataclasses.replace(
        of_loss,
        trials=of_loss.trials.rename(columns={METRIC: "validation/loss"}),
        metric="validation/loss",
        higher_is_better=False,
    )
    assert [row.name for row in table_of(of_loss).rows if row.bold] == ["winner"]


@pytest.mark.parametrize("column", ["absent", "empty"])
def test_a_search_without_a_test_split_has_no_p_and_nothing_bold(column: str) -> None:
    content = make_search()
    trials = content.trials.assign(**{"probe/test_accuracy": np.nan})
    trials = trials.drop(columns="probe/test_accuracy") if column == "absent" else trials
    table = table_of(dataclasses.replace(content, trials=trials))
    assert not any(row.bold for row in table.rows)
    assert texts(table)[3][7].startswith("+2.11 [")
    assert texts(table)[3][4:6] == ["–", "–"]
    notes = "\n".join(table.footnotes)
    assert "No trial here has a probe/test_accuracy" in notes
    assert "paired t test against the baseline" not in notes
    assert "detectable" not in notes


def test_fresh_seeds_do_not_undo_a_winner_s_luck_with_its_validation_images_and_the_test_split_does() -> None:
    # 20 points that are equally good; each is right on images of its own. The first seed chooses, as a search does.
    random, points, images, seeds, searches = np.random.default_rng(7), 20, 300, 5, 150
    differences: dict[str, list[float]] = {"validation": [], "test": []}
    for _ in range(searches):
        right = {
            split: 1 / (1 + np.exp(-(1 + random.normal(0, 1, images) + random.normal(0, 2, (points, images)))))
            for split in differences
        }
        first = (random.random((points, images)) < right["validation"]).mean(axis=1)
        winner = int(first[1:].argmax()) + 1  # point 0 is the baseline
        for split, of_points in right.items():
            scores = random.random((seeds, 2, images)) < of_points[[winner, 0]]
            differences[split].append(float((scores.mean(axis=2) @ [1, -1]).mean()))
    error = np.std(differences["test"]) / math.sqrt(searches)
    assert np.mean(differences["validation"]) > 0.01
    assert abs(np.mean(differences["test"])) < 3 * error < 0.01


def test_the_points_that_a_search_tried_are_no_part_of_its_table() -> None:
    content = make_search()
    searching = content.trials.assign(role="search")
    assert [len(row.values) for row in table_of(dataclasses.replace(content, trials=searching)).rows] == [0] * 4
    confirming = content.trials.assign(role=content.trials["role"].replace("final", "confirm"))
    assert [len(row.values) for row in table_of(dataclasses.replace(content, trials=confirming)).rows] == [3] * 4
    both = pd.concat(
        [content.trials, confirming.query("role == 'confirm'").assign(seed=lambda trials: trials["seed"] + 10)]
    )
    assert [sorted(row.values) for row in table_of(dataclasses.replace(content, trials=both)).rows] == [[0, 1, 2]] * 4


def test_only_winner_and_baseline_of_a_search_have_test_numbers_anywhere() -> None:
    trials = cleaned(make_search()).trials
    shown = trials.dropna(subset=["probe/test_accuracy"])
    assert set(shown["arm"]) == {"base", "winner"}
    assert set(shown["role"]) == {"final"}
    assert trials["random_encoder/test_accuracy"].notna().sum() == len(shown)


def test_many_seeds_are_no_error() -> None:
    assert "adjusted by Holm" in footnotes(make_content(num_seeds=60))


def test_digits_follow_the_uncertainty() -> None:
    def scale(metric: str, low: float, high: float) -> str:
        interval = Interval(3, (low + high) / 2, low, high)
        return scale_for(metric, [interval]).interval(interval)

    assert scale("probe/validation_accuracy", 0.7, 0.9) == "80.0 [70.0, 90.0]"
    assert scale("probe/validation_accuracy", 0.79, 0.80) == "79.50 [79.00, 80.00]"
    assert scale("validation/loss", 0.0123, 0.0125) == "0.01240 [0.01230, 0.01250]"
    assert scale("rankme_end", -250.0, 150.0) == "−50 [−250, 150]"
    assert scale_for("rankme_end", [mean_interval([0.0])]).value(0.0) == "0.00"


def test_sizes_times_and_p_are_short() -> None:
    assert [count(n) for n in (950.0, 830_123.0, 1_234_567.0, 86_000_000.0, 999_900.0)] == [
        "950",
        "830k",
        "1.23M",
        "86M",
        "1M",
    ]
    assert [duration(s) for s in (4.26, 45.0, 203.0, 5400.0, 90000.0)] == [
        "4.3 s",
        "45 s",
        "3.4 min",
        "90.0 min",
        "25.0 h",
    ]
    assert [p_value(p) for p in (0.0, 0.0004, 0.0123, 0.25, 1.0)] == ["<0.001", "<0.001", "0.012", "0.25", "1.00"]
    assert (count(math.nan), duration(math.nan), p_value(math.nan)) == ("–", "–", "–")
