"""The metrics that an ablation may name are those that a run really has."""

from __future__ import annotations

from jepa_lab.run import start_run
from jepa_lab.sweeps.objectives import OBJECTIVES, PRUNING_METRIC, refuse_objective
from jepa_lab.tracking.metrics import read_metrics
from tests.integration.pipelines import load_tiny


def test_objectives_are_the_numbers_of_a_result_without_test_split_and_controls(tmp_path) -> None:
    outcome = start_run(load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs", ["test"])
    metrics = outcome.result["metrics"]
    allowed = {name for name in metrics if "test_" not in name and not name.startswith(("random_", "raw_"))}
    assert set(OBJECTIVES) == allowed
    for name in metrics:
        assert (refuse_objective(name) is None) == (name in allowed), name
    online = [row for row in read_metrics(outcome.folder.metrics) if PRUNING_METRIC in row.metrics]
    assert online
