"""Whole searches: points, confirmation, a winner on fresh seeds, and the test split for winner and baseline alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from jepa_lab.config.loading import load_pipeline
from jepa_lab.sweeps.plan import load_plan
from jepa_lab.sweeps.search_study import SAMPLERS, SearchStudy
from jepa_lab.sweeps.studies import open_studies
from jepa_lab.sweeps.study import open_storage
from jepa_lab.sweeps.sweep import SweepOutcome, run_sweep
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.test_sweep import settings, write_ablation

SEARCH = """\
name: rates
base: tiny.yaml
search:
  optimizer.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  loss: {type: categorical, choices: [l2, smooth_l1]}
budget: {trials: 3}
sampler: random
seeds: [0, 1]
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SweepOutcome:
    folder = tmp_path_factory.mktemp("search")
    file = write_ablation(folder, SEARCH)
    return run_sweep(load_plan(file, ["training.epochs=1"]), file.read_text(), settings(folder / "sweeps"))


def test_a_search_runs_its_points_then_the_best_and_then_the_winner_on_fresh_seeds(searched: SweepOutcome) -> None:
    trials = searched.report.trials
    assert (trials["status"] == "FINISHED").all()
    by_role = {role: sorted(zip(part["arm"], part["seed"], strict=True)) for role, part in trials.groupby("role")}
    assert by_role["search"] == [("point 0", 0), ("point 1", 0), ("point 2", 0)]
    points = [(f"point {number}", 1) for number in range(3)]
    assert by_role["confirm"] == sorted([("baseline", 0), ("baseline", 1), *points])
    assert searched.report.search is not None
    winner = searched.report.search.winner
    assert by_role["final"] == [("baseline", 2), ("baseline", 3), (winner, 2), (winner, 3)]
    scores = trials[trials["role"] != "final"].groupby("arm")["probe/validation_accuracy"].mean().drop("baseline")
    assert scores[winner] == scores.max()


def test_only_winner_and_baseline_are_scored_on_the_test_split(searched: SweepOutcome) -> None:
    for _, trial in searched.report.trials.iterrows():
        result = RunFolder(Path(trial["run_folder"])).read_result()
        assert result is not None
        scored = result["metrics"]["probe/test_accuracy"] is not None
        assert scored == (trial["role"] == "final")


def test_best_yaml_is_the_pipeline_of_the_winner(searched: SweepOutcome) -> None:
    best = load_pipeline(searched.folder.best).pipeline
    trials = searched.report.trials
    assert searched.report.search is not None
    final = trials[(trials["role"] == "final") & (trials["arm"] == searched.report.search.winner)]
    trained = load_pipeline(RunFolder(Path(final["run_folder"].iloc[0])).config).pipeline
    assert best.name == "rates-best"
    assert best.seed == 0
    assert best.model_copy(update={"name": trained.name, "seed": trained.seed}) == trained
    assert f"# {searched.report.search.winner} of the search rates: " in searched.folder.best.read_text()


def test_only_points_are_ended_by_a_collapse(searched: SweepOutcome) -> None:
    stops = {
        role: {read_stop(folder) for folder in part["run_folder"]}
        for role, part in searched.report.trials.groupby("role", sort=False)
    }
    assert stops == {"search": {True}, "confirm": {False}, "final": {False}}


def read_stop(run_folder: str) -> bool:
    """Whether a run was to end with a collapse."""
    return load_pipeline(RunFolder(Path(run_folder)).config).pipeline.training.stop_on_collapse


def test_the_report_of_a_search_has_its_history_and_table(searched: SweepOutcome) -> None:
    search = searched.report.search
    assert search is not None
    assert search.history["number"].tolist() == [0, 1, 2]
    assert search.history["best"].is_monotonic_increasing
    assert searched.report.arms == ("baseline", search.winner)
    assert "point" in (searched.folder.report / "table.md").read_text()


def test_a_search_that_is_given_again_runs_nothing_again(searched: SweepOutcome) -> None:
    root = searched.folder.path.parent
    file = root.parent / "ablation.yaml"
    before = sorted(path.name for path in searched.folder.trials.iterdir())
    again = run_sweep(load_plan(file, ["training.epochs=1"]), file.read_text(), settings(root))
    assert sorted(path.name for path in again.folder.trials.iterdir()) == before
    assert again.report.search is not None
    assert searched.report.search is not None
    assert again.report.search.winner == searched.report.search.winner


def test_a_pruned_trial_is_shown_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SearchStudy, "should_prune", lambda self, number: number == 1)
    text = SEARCH.replace("seeds: [0, 1]", "seeds: [0]\npruner: median").replace("{trials: 3}", "{trials: 2}")
    file = write_ablation(tmp_path, text)
    plan = load_plan(file, ["training.epochs=30"])
    outcome = run_sweep(plan, file.read_text(), settings(tmp_path / "sweeps"))
    points = outcome.report.trials[outcome.report.trials["role"] == "search"].set_index("number")
    assert points["status"].to_dict() == {0: "FINISHED", 1: "PRUNED"}
    assert outcome.report.search is not None
    assert outcome.report.search.winner == "point 0"


COLLAPSING = """\
name: floors
base: tiny.yaml
overrides: {training.epochs: 1, collapse.patience: 1}
search:
  collapse.rank_floor: {type: categorical, choices: [1.0, 1000.0]}  # no run is above the second
  loss: {type: categorical, choices: [l2, smooth_l1]}
budget: {trials: 5}
sampler: random
seeds: [0]
"""


def test_a_point_that_collapses_ends_at_once_is_told_as_pruned_and_counted_in_the_report(tmp_path: Path) -> None:
    file = write_ablation(tmp_path, COLLAPSING)
    outcome = run_sweep(load_plan(file), file.read_text(), settings(tmp_path / "sweeps"))
    trials = outcome.report.trials
    points = trials[trials["role"] == "search"]
    is_collapsed = points["collapse.rank_floor"] == 1000
    assert 0 < is_collapsed.sum() < 5
    assert points["status"].tolist() == ["COLLAPSED" if each else "FINISHED" for each in is_collapsed]
    assert points.loc[is_collapsed, "probe/validation_accuracy"].isna().all()
    assert all("differ along few directions" in error for error in points.loc[is_collapsed, "error"])
    states = {trial.number: trial.state for trial in open_studies(outcome.folder, None).search.trials()}
    pruned = [number for number, state in states.items() if state == TrialState.PRUNED]
    assert pruned == points.loc[is_collapsed, "number"].tolist()
    told = f"Of the 5 points of the search, {len(pruned)} collapsed, were ended then, and count as pruned"
    assert told in (outcome.folder.report / "table.md").read_text()
    assert set(trials.loc[trials["role"] == "final", "status"]) == {"FINISHED"}


def test_arms_that_collapse_are_trained_to_the_end_and_counted(tmp_path: Path) -> None:
    text = COLLAPSING.replace("collapse.patience: 1", "collapse.patience: 1, collapse.rank_floor: 1000.0")
    table = "baseline: a\narms: {a: {}, b: {loss: l2}}\nseeds: [0]\n"
    file = write_ablation(tmp_path, text[: text.index("search:")] + table)
    base = tmp_path / "tiny.yaml"
    base.write_text(base.read_text().replace("training: {", "training: {stop_on_collapse: true, "))
    plan = load_plan(file)
    assert any("training.stop_on_collapse is on in the base, and it is off here" in note for note in plan.notes)
    outcome = run_sweep(plan, file.read_text(), settings(tmp_path / "sweeps"))
    assert outcome.report.trials["status"].tolist() == ["COLLAPSED", "COLLAPSED"]
    assert outcome.report.trials["probe/validation_accuracy"].notna().all()
    table_text = (outcome.folder.report / "table.md").read_text()
    assert "2 trials collapsed" in table_text
    assert "With a result, and therefore in the means: 2." in table_text


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_proposes_new_points_after_a_restart(tmp_path: Path, sampler: str) -> None:
    plan = load_plan(write_ablation(tmp_path, SEARCH.replace("sampler: random", f"sampler: {sampler}")))
    assert plan.search is not None
    rates = []
    for _ in range(3):
        storage = open_storage(tmp_path / "journal.log", None)
        study = SearchStudy(storage, "s", "maximize", sampler=sampler, seed=0, pruner=None, epochs=1)
        for _ in range(2):
            number, point = study.ask(plan.search.parameters)
            study.finish(number, float(number))
            rates.append(point["optimizer.learning_rate"])
    assert len(set(rates)) == 6
