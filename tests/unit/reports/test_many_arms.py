"""Tables with many arms: what is computed and shown does not grow with the square of the arms."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jepa_lab.figures.style import LIGHT
from jepa_lab.reports import multiplicity
from jepa_lab.reports.arm_figures import cost_drawing, means_drawing
from jepa_lab.reports.content import cleaned
from jepa_lab.reports.image_scores import BySeed, crossed_comparison
from jepa_lab.reports.listings import trials_table
from jepa_lab.reports.multiplicity import holm, p_of_being_best
from jepa_lab.reports.report import print_table
from jepa_lab.reports.shown import best_and_worst
from jepa_lab.reports.statistics import paired_t_p
from jepa_lab.reports.table import build_table
from jepa_lab.runs.predictions import NOT_KEPT
from jepa_lab.sweeps.trials import TrialRecord, curves_frame, predictions_of, probe_notes_frame, trials_frame
from jepa_lab.tracking.run_folder import RunFolder
from tests.unit.reports.frames import METRIC, make_content
from tests.unit.reports.image_worlds import scored

Values = dict[str, dict[int, float]]


def world(arms: int, seeds: int = 5, images: int = 60) -> tuple[Values, dict[str, BySeed]]:
    """Arms with effects of their own, on images some of which are hard for all."""
    random = np.random.default_rng(arms)
    hard = random.normal(0, 0.2, images)
    found: dict[str, BySeed] = {}
    for arm in range(arms):
        chance = np.clip(0.5 + random.normal(0, 0.05) + hard, 0, 1)
        found[str(arm)] = {seed: scored(random.random(images) < chance) for seed in range(seeds)}
    return {arm: {seed: float(each.correct.mean()) for seed, each in found[arm].items()} for arm in found}, found


def of_all_pairs(values: Values, images: dict[str, BySeed]) -> dict[str, float]:
    """The same p with every pair of arms compared."""
    smallest = {}
    for arm in values:
        one_sided = []
        for other in set(values) - {arm}:
            differences = [values[other][seed] - values[arm][seed] for seed in values[arm]]
            if np.mean(differences) > 0:
                crossed = crossed_comparison((values[other], values[arm]), (images[other], images[arm]))
                assert crossed is not None
                one_sided.append(max(paired_t_p(differences), crossed.p(no_spread=1.0)) / 2)
        smallest[arm] = min(1.0, (len(values) - 1) * min(one_sided, default=1.0))
    return holm(smallest)


@pytest.mark.parametrize("arms", [3, 12])
def test_p_of_being_best_is_that_of_all_pairs(arms: int) -> None:
    values, images = world(arms)
    assert p_of_being_best(values, images=images) == pytest.approx(of_all_pairs(values, images))


def test_few_pairs_of_many_arms_are_compared_over_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        multiplicity, "crossed_comparison", lambda *given: compared.append(1) or crossed_comparison(*given)
    )
    values, images = world(60)
    p_of_being_best(values, images=images)
    assert len(compared) < 8 * 60, "of 1770 pairs"


MANY = cleaned(make_content(("base", *(f"arm {number}" for number in range(199))), num_seeds=2))


def test_of_many_arms_the_best_and_the_worst_are_shown_beside_the_baseline() -> None:
    table = build_table(MANY)
    shown = best_and_worst(table, 20, 5)
    assert shown.words == "the 20 best and the 5 worst of 199 arms"
    assert shown.arms[0].role == "baseline"
    means = sorted((row.mean.mean for row in table.rows if row.role == "arm" and row.values), reverse=True)
    assert [row.mean.mean for row in shown.arms[1:]] == [*means[:20], *means[-5:]]
    assert [row for row in shown.table.rows if not row.is_trained] == [row for row in table.rows if not row.is_trained]


def test_few_arms_are_all_shown_in_the_order_of_the_plan() -> None:
    table = build_table(cleaned(make_content(("base", "b", "a"))))
    shown = best_and_worst(table, 1, 1)
    assert shown.table is table
    assert not shown.words


def test_a_terminal_shows_a_few_screens_of_many_arms_and_says_where_all_are() -> None:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        print_table(MANY, console)
    text = capture.get()
    assert text.count("\n") < 250
    assert "the 20 best and the 5 worst of 199 arms" in " ".join(text.split())


def test_figures_of_many_arms_are_no_higher_than_a_screen_or_two_and_say_what_they_show() -> None:
    table = build_table(MANY)
    for drawing in (means_drawing(table), cost_drawing(table)):
        assert drawing is not None
        assert drawing.draw(LIGHT).get_figheight() < 16
        assert len(drawing.alt) < 8000
    means = means_drawing(table)
    assert means is not None
    assert "the 25 best and the 10 worst of 199 arms" in means.title


def test_the_page_lists_the_best_of_many_trials_and_those_without_a_result() -> None:
    table = trials_table(MANY)
    assert len(table.rows) == 300
    assert table.caption.startswith("400 trials; shown are ")
    lost = (~MANY.trials["status"].isin(["FINISHED"])).sum()
    assert [row[4].text == "FINISHED" for row in table.rows].count(False) == min(lost, 150)
    values = [row[5].sort for row in table.rows if row[4].text == "FINISHED"]
    best = MANY.trials.loc[MANY.trials["status"] == "FINISHED", METRIC].sort_values(ascending=False)
    assert values == pytest.approx(best.head(len(values)).tolist())


def test_each_result_is_read_once_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = []
    for seed in range(3):
        folder = RunFolder.create(tmp_path, "tiny", "00c0ffee", seed, "a: 1\n")
        folder.write_result("FINISHED", {METRIC: 0.5}, 1, probe={"trained": {"knn": {"notes": ["a note"]}}})
        records.append(TrialRecord(seed, "a", seed, "FINISHED", "arm", {}, folder, None))
    read, real = [], RunFolder.read_result
    monkeypatch.setattr(RunFolder, "read_result", lambda self: read.append(self.path) or real(self))
    assert trials_frame(records)[METRIC].tolist() == [0.5] * 3
    assert len(probe_notes_frame(records)) == 3
    assert set(predictions_of(records).values()) == {NOT_KEPT}
    assert curves_frame(records).empty
    assert sorted(read) == sorted(record.folder.path for record in records if record.folder is not None)
