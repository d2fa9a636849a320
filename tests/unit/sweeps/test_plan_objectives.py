"""The metrics that an ablation may name are those that a run really has."""

from __future__ import annotations

import pytest

from jepa_lab.evaluation import validation_metrics
from jepa_lab.run import start_run
from jepa_lab.sweeps.objectives import OBJECTIVES, PRUNING_METRIC, direction_of, missing_probe, refuse_objective
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


def test_the_metrics_of_a_pipeline_s_probes_may_be_named_and_others_are_told_apart(tmp_path) -> None:
    probes = "probe.additional=[{name: low_shot, shots: [1, 2], draws: 2}, layerwise]"
    loaded = load_tiny(tmp_path, "training.epochs=1", probes, "data.max_images=60", "training.batch_size=10")
    metrics = start_run(loaded, tmp_path / "runs", ["test"]).result["metrics"]
    of_probes = [name for name in metrics if name.startswith("probe/") and name.endswith("validation_accuracy")]
    assert validation_metrics(loaded.pipeline) == of_probes
    assert "probe/low_shot_2_validation_accuracy" in of_probes
    for name in of_probes:
        assert refuse_objective(name) is missing_probe(name, loaded.pipeline) is None
        assert direction_of(name) == "maximize"
    told = missing_probe("probe/knn_validation_accuracy", loaded.pipeline)
    assert told is not None
    assert "probe/low_shot_2_validation_accuracy" in told
    assert missing_probe("rankme_end", loaded.pipeline) is None


@pytest.mark.parametrize("metric", ["probe/online_validation_accuracy", "probe/low_shot_2_test_accuracy", "probe/x"])
def test_what_no_result_has_is_refused_before_any_pipeline_is_looked_at(metric: str) -> None:
    assert refuse_objective(metric) is not None
