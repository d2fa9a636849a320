"""The metrics that an ablation may name are those that a run really has."""

from __future__ import annotations

import pytest

from jepa_lab.composition.start import start_run
from jepa_lab.evaluation import validation_metrics
from jepa_lab.monitoring import end_metrics
from jepa_lab.sweeps.objectives import OBJECTIVES, PRUNING_METRIC, direction_of, missing_metric, refuse_objective
from jepa_lab.tracking.metrics import read_metrics
from tests.integration.pipelines import load_tiny


def test_objectives_are_the_numbers_of_a_result_without_test_split_and_controls(tmp_path) -> None:
    outcome = start_run(load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs", ["test"])
    metrics = outcome.result["metrics"]
    shown = {name for name in metrics if "test_" not in name and not name.startswith(("random_", "raw_"))}
    of_monitors = set(end_metrics(load_tiny(tmp_path).pipeline))
    counts = {name for name in shown if name.endswith("_images")}  # of images that were looked at
    assert of_monitors < shown
    assert set(OBJECTIVES) == shown - of_monitors - counts
    allowed = shown - counts - {"monitor/alpha_req_train"}
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
        assert refuse_objective(name) is missing_metric(name, loaded.pipeline) is None
        assert direction_of(name) == "maximize"
    told = missing_metric("probe/knn_validation_accuracy", loaded.pipeline)
    assert told is not None
    assert "probe/low_shot_2_validation_accuracy" in told
    assert missing_metric("rankme_end", loaded.pipeline) is None


def test_the_metrics_of_a_pipeline_s_monitors_may_be_named_and_others_are_told_apart(tmp_path) -> None:
    pipeline = load_tiny(tmp_path, "monitors.end=[lidar, uniformity]").pipeline
    assert missing_metric("monitor/lidar_train", pipeline) is None
    assert direction_of("monitor/lidar_train") == "maximize"
    assert direction_of("monitor/uniformity_train") == "minimize"
    told = missing_metric("monitor/rankme_train", pipeline)
    assert told is not None
    assert "is of no monitor in monitors.end, which gives monitor/lidar_train, monitor/uniformity_train" in told
    nothing = missing_metric("monitor/rankme_train", load_tiny(tmp_path, "monitors.end=[]").pipeline)
    assert nothing is not None
    assert "which is empty" in nothing


def test_a_monitor_that_is_best_at_some_number_decides_nothing() -> None:
    told = refuse_objective("monitor/alpha_req_train")
    assert told is not None
    assert "neither a larger nor a smaller alpha-ReQ is said to be better" in told


@pytest.mark.parametrize(
    "metric",
    ["monitor/rankme_train_images", "probe/online_validation_accuracy", "probe/low_shot_2_test_accuracy", "probe/x"],
)
def test_what_no_result_has_is_refused_before_any_pipeline_is_looked_at(metric: str) -> None:
    assert refuse_objective(metric) is not None
