"""What follows the points of a search: who wins, and on which seeds the winner is trained anew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jepa_lab.sweeps.search import SearchParameter
from jepa_lab.sweeps.search_sweep import choose_winner, fresh_seeds, point_name
from jepa_lab.sweeps.studies import Studies
from jepa_lab.sweeps.study import Direction, PlannedTrial, open_storage

RATE = SearchParameter("optimizer.learning_rate", "float", 1e-4, 1e-2, True, None, (), (), {}, "x:1")


def searched(folder: Path, direction: Direction, points: list[tuple[float, float | None]]) -> tuple[Any, Studies]:
    """A plan and its studies: points with their values on the first seed and (None: failed) on the second."""
    record = {
        "name": "s",
        "direction": direction,
        "search": {"sampler": "random", "sampler_seed": 0, "pruner": None},
        "baseline_config": {"training.epochs": 3},
    }
    plan: Any = SimpleNamespace(direction=direction, seeds=(0, 1), baseline="baseline")
    studies = Studies(open_storage(folder / "journal.log", None), record)
    for value, _ in points:
        number, _ = studies.search.ask((RATE,))
        studies.search.finish(number, value)
    confirmed = {point_name(number): value for number, (_, value) in enumerate(points)} | {"baseline": 0.99}
    names = ["baseline", *(point_name(trial.number) for trial in studies.search.best(3))]
    table = studies.after("confirm", names, plan.seeds)
    table.enqueue(PlannedTrial(name, 1, "confirm") for name in names)
    for number, planned in table.to_run():
        table.begin(number)
        table.finish(number, confirmed[planned.arm])
    return plan, studies


@pytest.mark.parametrize(("direction", "winner"), [("maximize", "point 1"), ("minimize", "point 2")])
def test_the_winner_has_the_best_mean_over_the_seeds(tmp_path: Path, direction: Direction, winner: str) -> None:
    plan, studies = searched(tmp_path, direction, [(0.5, 0.5), (0.4, 0.8), (0.6, 0.2)])
    assert choose_winner(plan, studies) == winner


def test_a_seed_that_failed_is_left_out_of_the_mean(tmp_path: Path) -> None:
    plan, studies = searched(tmp_path, "maximize", [(0.7, None), (0.8, 0.5)])
    assert choose_winner(plan, studies) == "point 0"


def test_the_winner_is_trained_on_seeds_that_no_trial_has_used() -> None:
    assert fresh_seeds((0, 3)) == (4, 5)
    assert fresh_seeds((7,)) == (8,)
