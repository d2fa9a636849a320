"""A table of runs whose predictions are known: two intervals, and everything that is decided follows the stricter."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.multiplicity import holm
from jepa_lab.reports.table import Row, Table, build_table
from jepa_lab.reports.table_csv import table_csv
from jepa_lab.runs.predictions import RunPredictions
from tests.unit.reports.frames import METRIC, make_content, make_search, with_predictions

TEST = "probe/test_accuracy"


def table_of(content: ReportInput) -> Table:
    return build_table(cleaned(content))


def row_of(table: Table, name: str) -> Row:
    return next(row for row in table.rows if row.name == name)


def differences(content: ReportInput, arm: str, metric: str) -> np.ndarray:
    """Of being right, arm - baseline, [S, n], straight from the predictions."""
    trials, rows = content.trials, []
    for seed in content.seeds:
        right = []
        for each in (arm, content.baseline):
            chosen = trials[(trials["arm"] == each) & (trials["seed"] == seed)]
            kept = content.predictions[chosen["run_folder"].iloc[-1]]
            assert isinstance(kept, RunPredictions)
            split = "test" if "test" in metric else "validation"
            right.append(kept.tensors[f"{split}/trained/logistic"] == kept.tensors[f"{split}/labels"])
        rows.append(right[0].astype(float) - right[1])
    return np.array(rows)


def by_hand(found: np.ndarray) -> tuple[float, float, float, float]:
    """Interval over seeds and images, p over seeds, and p over both, by the analysis of variance and scipy alone."""
    num_seeds, num_images = found.shape
    seeds, images, mean = found.mean(axis=1), found.mean(axis=0), found.mean()
    of_seeds, of_images = num_images * seeds.var(ddof=1), num_seeds * images.var(ddof=1)
    rest = ((found - seeds[:, None] - images + mean) ** 2).sum() / ((num_seeds - 1) * (num_images - 1))
    total = of_seeds + of_images - rest
    squares = of_seeds**2 / (num_seeds - 1) + of_images**2 / (num_images - 1)
    degrees = total**2 / (squares + rest**2 / ((num_seeds - 1) * (num_images - 1)))
    error = math.sqrt(total / found.size)
    plain = stats.ttest_1samp(seeds, 0)
    narrow = plain.confidence_interval(0.95)
    half = max(stats.t.ppf(0.975, degrees) * error, (narrow.high - narrow.low) / 2)
    p = max(float(plain.pvalue), float(2 * stats.t.sf(abs(mean) / error, degrees)))
    return mean - half, mean + half, float(plain.pvalue), p


CONTENT = with_predictions(make_content())


@pytest.mark.parametrize("arm", ["wide", "random masks"])
def test_both_intervals_and_p_are_those_that_scipy_gives_for_the_predictions(arm: str) -> None:
    row = row_of(table_of(CONTENT), arm)
    low, high, p_seeds, p = by_hand(differences(CONTENT, arm, METRIC))
    assert row.comparison is not None
    assert (row.comparison.over_images.low, row.comparison.over_images.high) == pytest.approx((low, high), rel=0.02)
    assert row.comparison.seeds_p == pytest.approx(p_seeds)
    assert row.comparison.p == pytest.approx(p, rel=0.05)
    assert row.comparison.over_images.high - row.comparison.over_images.low > (
        row.comparison.difference.high - row.comparison.difference.low
    )


def test_p_in_the_table_is_holm_over_the_stricter_tests() -> None:
    table = table_of(CONTENT)
    p = {row.name: row.comparison.p for row in table.rows if row.role == "arm" and row.comparison}
    assert {row.name: row.holm_p for row in table.rows if row.role == "arm"} == pytest.approx(holm(p))
    assert any(row.comparison.p > row.comparison.seeds_p for row in table.rows if row.role == "arm" and row.comparison)


def test_the_second_interval_has_a_column_and_the_controls_have_it_too() -> None:
    text = table_of(CONTENT).as_text()
    headings = [column.heading for column in text.columns]
    place = headings.index("over seeds and images")
    assert headings[place - 1 : place + 2] == ["difference", "over seeds and images", "p"]
    assert text.columns[place - 1].detail == "points [95% over seeds]"
    for row in text.rows[1:]:
        assert re.fullmatch(r"\[[+−]?[\d.]+, [+−]?[\d.]+\]", row[place].text), row
    assert text.rows[0][place].text == "–"


def test_what_is_ruled_out_and_what_could_have_been_found_follow_the_wider_interval() -> None:
    table, plain = table_of(CONTENT), table_of(replace(CONTENT, predictions={}))
    notes, others = ("\n".join(each.footnotes) for each in (table, plain))
    worst = row_of(table, "wide").comparison
    assert worst is not None
    margin = 100 * max(abs(worst.over_images.low), abs(worst.over_images.high))
    assert f"wide within {margin:.1f} points" in notes or f"wide within {margin:.2f} points" in notes
    assert "p: two-sided test against the baseline by probe/validation_accuracy, the larger p of" in notes

    def effect(text: str) -> float:
        found = re.search(r"Minimum detectable effect: ([\d.]+) points", text)
        assert found is not None
        return float(found[1])

    assert effect(notes) > effect(others)
    assert "200 images" in notes
    assert "for these very images only" in notes


def test_without_predictions_the_table_says_that_it_is_over_seeds_alone_and_why() -> None:
    table = table_of(replace(CONTENT, predictions={}))
    assert "over seeds and images" not in [column.heading for column in table.as_text().columns]
    notes = "\n".join(table.footnotes)
    assert (
        "No interval over seeds and images by probe/validation_accuracy: no predictions were kept with the run" in notes
    )
    assert "over seeds alone, on these very images" in notes


def test_one_damaged_file_takes_the_interval_from_its_arm_alone_and_is_named() -> None:
    folder = CONTENT.trials.loc[CONTENT.trials["arm"] == "wide", "run_folder"].iloc[1]
    table = table_of(replace(CONTENT, predictions={**CONTENT.predictions, folder: f"{folder}/p is damaged"}))
    wide, other = row_of(table, "wide").comparison, row_of(table, "random masks").comparison
    assert wide is not None
    assert other is not None
    assert wide.crossed is None
    assert wide.p == wide.seeds_p
    assert other.crossed is not None
    notes = "\n".join(table.footnotes)
    assert f"No interval over seeds and images of wide by probe/validation_accuracy: {folder}/p is damaged." in notes


def test_a_metric_that_is_no_accuracy_over_images_is_compared_over_seeds_and_says_so() -> None:
    trials = CONTENT.trials.assign(**{"probe/mean_iou": CONTENT.trials[METRIC] / 2})
    table = table_of(replace(CONTENT, trials=trials, metric="probe/mean_iou"))
    assert "it is not an accuracy over images of which each has a predicted class" in "\n".join(table.footnotes)


def test_arms_on_other_images_are_compared_over_seeds_and_the_table_says_so() -> None:
    changed = {}
    for folder, kept in CONTENT.predictions.items():
        assert isinstance(kept, RunPredictions)
        moved = {f"{split}/positions": np.arange(200) + 1 for split in ("validation", "test")}
        changed[folder] = replace(kept, tensors={**kept.tensors, **moved}) if folder.startswith("runs/wide") else kept
    table = table_of(replace(CONTENT, predictions=changed))
    assert "of wide by probe/validation_accuracy: the arm and the baseline were not scored on the same images" in (
        "\n".join(table.footnotes)
    )


def test_the_winner_of_a_search_is_compared_over_the_images_of_the_test_split() -> None:
    search = make_search()
    finals = search.trials[search.trials["role"] == "final"]
    scored = with_predictions(replace(search, trials=finals))
    others = search.trials[search.trials["role"] != "final"]
    content = replace(scored, trials=pd.concat([others, scored.trials], ignore_index=True))
    table = table_of(content)
    headings = [column.heading for column in table.as_text().columns]
    assert headings.index("over seeds and images") == headings.index("test difference") + 1
    row = row_of(table, "winner")
    low, high, _, p = by_hand(differences(scored, "winner", TEST))
    assert row.test_comparison is not None
    assert (row.test_comparison.over_images.low, row.test_comparison.over_images.high) == pytest.approx(
        (low, high), rel=0.02
    )
    assert row.holm_p == pytest.approx(p, rel=0.05)


def test_the_csv_has_every_digit_of_both_intervals_and_of_each_p() -> None:
    table = table_of(CONTENT)
    found = pd.read_csv(io.StringIO(table_csv(table))).set_index("arm")
    assert list(found.index) == [row.name for row in table.rows]
    comparison = row_of(table, "wide").comparison
    assert comparison is not None
    line = found.loc["wide"]
    assert line["seeds_low"] == pytest.approx(comparison.difference.low, rel=1e-12)
    assert line["seeds_images_high"] == pytest.approx(comparison.over_images.high, rel=1e-12)
    assert (line["p_seeds"], line["p"]) == pytest.approx((comparison.seeds_p, comparison.p), rel=1e-12)
    assert math.isnan(found.loc["base", "p"])
    searched = pd.read_csv(io.StringIO(table_csv(table_of(make_search()))))
    assert list(searched["metric"]) == [METRIC, TEST] * len(searched[searched["metric"] == TEST])


def test_where_a_number_is_the_mean_of_several_fits_the_table_says_that_other_fits_are_not_covered() -> None:
    told = "the mean of 2 fits, such as one for each draw of labels: neither interval says what other draws would give"
    assert "draw of labels" not in "\n".join(table_of(CONTENT).footnotes)
    kept = {}
    for folder, found in CONTENT.predictions.items():
        assert isinstance(found, RunPredictions)
        name = found.metrics[METRIC]
        kept[folder] = replace(found, tensors={**found.tensors, name: np.stack([found.tensors[name]] * 2)})
    assert told in "\n".join(table_of(replace(CONTENT, predictions=kept)).footnotes)


def test_with_a_split_for_each_seed_the_table_says_what_its_intervals_are_over() -> None:
    random, kept = np.random.default_rng(0), {}
    splits = [np.sort(random.choice(1000, 200, replace=False)) for _ in CONTENT.seeds]
    for _, trial in CONTENT.trials.iterrows():
        found = CONTENT.predictions[trial["run_folder"]]
        assert isinstance(found, RunPredictions)
        own = {"validation/positions": splits[trial["seed"]]}
        kept[trial["run_folder"]] = replace(found, tensors={**found.tensors, **own})
    table = table_of(replace(CONTENT, predictions=kept, split_seeds=(0, 1, 2, 3, 4)))
    notes = "\n".join(table.footnotes)
    assert "over the seeds, each with a validation split of its own" in notes
    assert "200 images each; data.split_seed 0, 1, 2, 3, 4" in notes
    assert "which are the same in every run of a seed." in notes  # RankMe's images: of the seed's own split
    assert "which are the same in every run." in "\n".join(table_of(CONTENT).footnotes)
    assert re.search(r"two splits share images \((19|20|21)% on average\)", notes)
    for row in table.rows[1:]:
        assert row.comparison is not None
        assert row.comparison.crossed is not None
        assert row.comparison.crossed.num_images > 600
