"""Encoders from elsewhere in the table of a report: beside the controls, once per split, never judged."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from jepa_lab.reports.arm_figures import means_drawing
from jepa_lab.reports.content import Reference, ReportInput, cleaned
from jepa_lab.reports.finding import finding
from jepa_lab.reports.table import Row, Table, build_table
from jepa_lab.reports.table_csv import table_csv
from jepa_lab.runs.predictions import RunPredictions
from tests.unit.reports.frames import METRIC, make_content, make_search, with_predictions

TEST = "probe/test_accuracy"


def reference(splits: dict[int, int], values: dict[int, float], **changes: object) -> Reference:
    metrics = {split: {METRIC: value, TEST: value - 0.1} for split, value in values.items()}
    return dataclasses.replace(Reference("../runs/big", "/runs/big", splits, metrics, {}), **changes)  # type: ignore[arg-type]


def with_reference(content: ReportInput, found: Reference) -> tuple[Table, Row]:
    table = build_table(cleaned(dataclasses.replace(content, references=(found,))))
    return table, next(row for row in table.rows if row.role == "reference")


def test_a_reference_stands_after_the_controls_and_is_said_not_to_be_trained_here() -> None:
    table, row = with_reference(make_content(), reference(dict.fromkeys(range(5), 0), {0: 0.9}))
    assert [each.role for each in table.rows] == ["baseline", "control", "control", "reference", "arm", "arm"]
    cells = table.as_text().rows[3]
    assert cells[0].text == "reference (not trained here): ../runs/big"
    assert cells[2].text == "1/1"
    assert (row.mean.mean, row.mean.n) == (0.9, 1)
    assert math.isnan(row.mean.low)
    assert row.test.mean == pytest.approx(0.8)
    assert any(
        note.startswith("References: encoders from elsewhere, which this sweep did not train")
        for note in table.footnotes
    )
    assert "\n../runs/big,reference," in table_csv(table)


def test_its_difference_is_over_the_seeds_of_the_baseline_and_has_no_p() -> None:
    content = make_content()
    table, row = with_reference(content, reference(dict.fromkeys(range(5), 0), {0: 0.9}))
    baseline = content.trials[content.trials["arm"] == "base"][METRIC].to_numpy()
    assert row.comparison is not None
    assert row.comparison.difference.mean == pytest.approx(0.9 - baseline.mean())
    assert row.comparison.difference.n == 5
    assert math.isnan(row.holm_p)
    assert not row.bold
    without = build_table(cleaned(content))
    assert [each.holm_p for each in table.rows if each.role == "arm"] == [
        each.holm_p for each in without.rows if each.role == "arm"
    ]
    assert finding(table) == finding(without)


def test_with_the_images_that_it_got_right_there_is_an_interval_over_images_too() -> None:
    content = with_predictions(make_content())
    kept = content.predictions["runs/wide-0a1b2c3d-s0"]
    assert isinstance(kept, RunPredictions)
    scored = kept.scored(METRIC)
    assert scored is not None
    value = float(np.mean(scored.correct))
    found = reference(dict.fromkeys(range(5), 0), {0: value}, predictions={0: kept})
    _, row = with_reference(content, found)
    assert row.comparison is not None
    assert row.comparison.crossed is not None
    assert row.comparison.crossed.num_images == 200


def test_with_a_split_for_each_seed_it_is_paired_by_split() -> None:
    content = make_content(num_seeds=2, split_seeds=(10, 11))
    _, row = with_reference(content, reference({0: 10, 1: 11}, {10: 0.7, 11: 0.9}))
    assert row.values == {0: 0.7, 1: 0.9}
    assert (row.mean.n, row.planned) == (2, 2)
    baseline = content.trials[content.trials["arm"] == "base"].set_index("seed")[METRIC]
    assert row.comparison is not None
    assert row.comparison.difference.mean == pytest.approx(0.8 - baseline.mean())


def test_in_a_search_it_is_compared_on_the_test_split_too() -> None:
    _, row = with_reference(make_search(), reference(dict.fromkeys(range(3), 0), {0: 0.9}))
    assert row.test_comparison is not None
    assert row.test_comparison.difference.n == 3


def test_one_that_is_not_probed_yet_has_no_line() -> None:
    content = dataclasses.replace(make_content(), references=(Reference("later", "later", {}, {}, {}),))
    table = build_table(cleaned(content))
    assert "reference" not in {row.role for row in table.rows}
    assert not any(note.startswith("References") for note in table.footnotes)


def test_it_is_a_line_in_the_figure_of_the_means_and_no_arm() -> None:
    table, _ = with_reference(make_content(), reference(dict.fromkeys(range(5), 0), {0: 0.9}))
    drawing = means_drawing(table)
    assert drawing is not None
    assert "../runs/big 90" in drawing.alt
