"""The sentence that a report opens with."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.finding import finding
from jepa_lab.reports.report import print_table, write_report
from jepa_lab.reports.table import Table, build_table
from tests.unit.reports.frames import METRIC, make_content, make_search, set_trial, with_predictions
from tests.unit.tables.reading import printed


def table_of(content: ReportInput) -> Table:
    return build_table(cleaned(content))


def sentence(content: ReportInput) -> str:
    told = finding(table_of(content))
    assert told.endswith(".")
    assert "\n" not in told
    return told


def with_status(content: ReportInput, status: str, *pairs: tuple[str, int]) -> ReportInput:
    for arm, seed in pairs:
        content = set_trial(content, arm, seed, status=status)
    return content


def test_an_arm_that_is_better_is_named_with_how_much_and_over_what() -> None:
    content = make_content(effects=(0, 0.05, 0))
    told = sentence(content)
    row = next(row for row in table_of(content).rows if row.name == "wide")
    assert row.comparison is not None
    found = re.fullmatch(
        r"wide is better than the baseline base by ([\d.]+) points of probe/validation_accuracy "
        r"\(95% interval \+([\d.]+) to \+([\d.]+), over 5 seeds\); no difference was found for random masks\.",
        told,
    )
    assert found is not None, told
    mean, low, high = (float(each) / 100 for each in found.groups())
    strict = row.comparison.strict
    assert [mean, low, high] == pytest.approx([strict.mean, strict.low, strict.high], abs=1e-4)


def test_the_interval_is_the_wider_one_and_says_so() -> None:
    content = with_predictions(make_content())
    content = dataclasses.replace(content, arms=("base", "wide"))
    table = table_of(content)
    row = next(row for row in table.rows if row.name == "wide")
    assert row.comparison is not None
    assert row.comparison.crossed is not None
    told = finding(table)
    assert "over 5 seeds and 200 images" in told
    if row.holm_p > 0.05:
        margin = max(abs(row.comparison.over_images.low), abs(row.comparison.over_images.high))
        assert f"a difference of more than {table.scale.value(margin)} points is ruled out" in told


def test_of_several_better_arms_the_best_is_first_and_worse_ones_are_named() -> None:
    content = make_content(("base", "good", "best", "bad"), effects=(0, 0.05, 0.09, -0.06))
    told = sentence(content)
    assert told.startswith("best is better than the baseline base by ")
    assert told.endswith("; good is better, too; bad is worse.")


def test_worse_arms_alone_are_told_as_such() -> None:
    told = sentence(make_content(effects=(0, -0.05, -0.08)))
    assert told.startswith("No arm is better than the baseline base: random masks is worse by 8")
    assert "95% interval −" in told
    assert told.endswith("; wide is worse, too.")


def test_where_less_is_better_a_smaller_number_is_better() -> None:
    content = make_content(effects=(0, -0.05, 0), higher_is_better=False)
    assert sentence(content).startswith("wide is better than the baseline base by ")


def test_without_a_difference_it_says_how_large_a_one_is_ruled_out() -> None:
    told = sentence(make_content(effects=(0, 0, 0)))
    assert re.fullmatch(
        r"No difference from the baseline base found by probe/validation_accuracy: a difference of more than "
        r"[\d.]+ points is ruled out \(95%, over 5 seeds\)\.",
        told,
    ), told


def test_what_has_no_spread_rules_nothing_out() -> None:
    content = make_content(("base", "same"), effects=(0, 0))
    told = sentence(dataclasses.replace(content, trials=content.trials.assign(**{METRIC: 0.8})))
    assert told == (
        "Nothing can be told apart from the baseline base by probe/validation_accuracy: there is no spread between the "
        "seeds."
    )


def test_one_seed_is_no_evidence() -> None:
    told = sentence(make_content(num_seeds=1, effects=(0, 0.05, 0)))
    assert re.fullmatch(
        r"With one seed nothing can be told from luck: wide is [\d.]+ points of probe/validation_accuracy better than "
        r"the baseline base, which is not evidence\.",
        told,
    ), told


def test_failed_and_open_trials_are_counted() -> None:
    content = make_content(effects=(0, 0.08, 0))
    partly = with_status(content, "RUNNING", ("wide", 4), ("random masks", 4))
    assert sentence(partly).startswith("So far, with 13 of 15 trials finished: wide is better than")
    lost = with_status(content, "FAILED", ("random masks", 3))
    assert sentence(lost).endswith("; 1 of 15 trials failed or ended early.")
    assert sentence(with_status(make_content(effects=(0, 0, 0)), "WAITING", ("wide", 4))).startswith(
        "So far, with 14 of 15 trials finished: no difference"
    )


def test_without_results_it_says_why() -> None:
    content = make_content()
    everything = [(arm, seed) for arm in content.arms for seed in content.seeds]
    assert sentence(with_status(content, "FAILED", *everything)) == (
        "Nothing was found: all of 15 trials failed or ended early."
    )
    assert sentence(with_status(content, "WAITING", *everything)) == (
        "No result yet: 15 of 15 trials still running or waiting."
    )
    baseline = with_status(content, "FAILED", *[("base", seed) for seed in content.seeds])
    assert sentence(baseline).startswith("The baseline base has no result, so that nothing can be compared with it; 5")
    arms = with_status(content, "FAILED", *[pair for pair in everything if pair[0] != "base"])
    assert sentence(arms).startswith("No arm has a result on a seed of the baseline base")
    empty = dataclasses.replace(content, trials=pd.DataFrame(columns=list(content.trials.columns)))
    assert sentence(empty) == "No result yet: no trial of this table has begun."


def test_a_search_is_judged_on_the_test_split() -> None:
    content = make_search()
    told = sentence(content)
    assert "The winner of the search, winner, is better than the baseline base by " in told
    assert "points of probe/test_accuracy" in told
    assert "over 3 seeds" in told
    searching = content.trials[content.trials["role"] == "search"]
    assert content.search is not None
    search = dataclasses.replace(content.search, winner=None)
    unfinished = dataclasses.replace(content, trials=searching, search=search, arms=("base",), changed={})
    assert sentence(unfinished) == "No result yet: no trial of this table has begun."


def test_every_form_of_a_report_opens_with_it(tmp_path: Path) -> None:
    content = make_content(effects=(0, 0.05, 0))
    told = sentence(content)
    write_report(content, tmp_path)
    assert (tmp_path / "table.md").read_text().splitlines()[0] == told
    page = (tmp_path / "report.html").read_text()
    assert page.index(f"<p>{told}</p>") < page.index("An ablation: ")
    assert " ".join(printed(200, lambda console: print_table(content, console)).split()).startswith(told)


def test_random_tables_never_claim_more_than_their_p() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        content = make_content(("base", "a", "b", "c"), effects=(0, *random.normal(0, 0.01, 3)))
        table = table_of(content)
        told = finding(table)
        apart = {row.name for row in table.rows if row.role == "arm" and row.holm_p <= 0.05}
        assert ("No difference from the baseline" in told) == (not apart)
