"""The winner of a sweep as a tracker is told it."""

from __future__ import annotations

import math

import pytest

from jepa_lab.reports.content import cleaned
from jepa_lab.reports.table import build_table
from jepa_lab.reports.winner import winner_of
from tests.unit.reports.frames import METRIC, make_content, make_search, set_trial

TEST = "probe/test_accuracy"


def test_the_winner_of_a_table_is_the_arm_with_the_best_mean_and_has_the_tables_numbers() -> None:
    content = make_content(("base", "wide", "worse"), 5, (0.0, 0.05, -0.05))
    winner = winner_of(content)
    assert winner is not None
    row = next(row for row in build_table(cleaned(content)).rows if row.name == "wide")
    assert row.comparison is not None
    assert winner.words == {"winner": "wide", "winner_or_as_good": "wide"}
    assert winner.numbers[f"winner/{METRIC}"] == pytest.approx(row.mean.mean)
    assert winner.numbers[f"winner/{TEST}"] == pytest.approx(row.test.mean)
    assert winner.numbers["winner/difference"] == pytest.approx(row.comparison.strict.mean)
    assert winner.numbers["winner/difference_low"] == pytest.approx(row.comparison.strict.low)
    assert winner.numbers["winner/difference_high"] == pytest.approx(row.comparison.strict.high)
    assert winner.numbers["winner/p_holm"] == pytest.approx(row.holm_p)
    assert winner.numbers["winner/num_seeds"] == 5
    assert winner.numbers[f"winner/{METRIC}"] - winner.numbers[f"baseline/{METRIC}"] == pytest.approx(0.05, abs=0.01)


def test_a_metric_of_which_less_is_better_has_the_lowest_for_its_winner() -> None:
    winner = winner_of(make_content(("base", "wide"), 5, (0.0, 0.05), higher_is_better=False))
    assert winner is not None
    assert winner.words["winner"] == "base"
    assert "winner/difference" not in winner.numbers  # the baseline is not compared with itself


def test_arms_that_may_be_as_good_are_named_beside_the_winner() -> None:
    winner = winner_of(make_content(("base", "twin"), 5, (0.0, 0.0001)))
    assert winner is not None
    assert set(winner.words["winner_or_as_good"].split(", ")) == {"base", "twin"}


def test_the_winner_of_a_search_is_its_chosen_point_and_is_compared_on_the_test_split() -> None:
    content = make_search()
    winner = winner_of(content)
    assert winner is not None
    row = next(row for row in build_table(cleaned(content)).rows if row.name == "winner")
    assert row.test_comparison is not None
    assert winner.words["winner"] == "winner"
    assert winner.numbers["winner/difference"] == pytest.approx(row.test_comparison.strict.mean)


def test_nothing_that_was_not_measured_is_a_number() -> None:
    content = make_content(("base", "wide"), 1)
    winner = winner_of(content)
    assert winner is not None
    assert not any(math.isnan(value) for value in winner.numbers.values())
    for arm in ("base", "wide"):
        content = set_trial(content, arm, 0, status="FAILED")
    assert winner_of(content) is None
