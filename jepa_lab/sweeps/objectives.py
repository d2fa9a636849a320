"""The numbers of a run's result that an ablation may be decided by."""

from __future__ import annotations

import re

from jepa_lab.config.pipeline import Pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.evaluation import validation_metrics
from jepa_lab.measures import MEASURES
from jepa_lab.monitoring import end_metrics
from jepa_lab.monitors.base import end_name, known_metrics
from jepa_lab.registry import did_you_mean
from jepa_lab.sweeps.ablation import Direction

PRUNING_METRIC = "probe/online_validation_accuracy"
"""What a pruner looks at while a trial runs. Never the pretraining loss: it also falls in a collapse."""

OBJECTIVES: dict[str, Direction] = {
    "probe/validation_accuracy": "maximize",
    "probe/knn_validation_accuracy": "maximize",
    "rankme_start": "maximize",
    "rankme_end": "maximize",
    "training_seconds": "minimize",
    "images_per_second": "maximize",
    "collapsed": "minimize",
    "collapse_warned": "minimize",
    "skipped_steps": "minimize",
    "encoder_parameters": "minimize",
    "predictor_parameters": "minimize",
}
"""Name in result.json -> which way is better. tests/unit/sweeps/test_plan_objectives.py compares it with a run's."""

_OF_A_PROBE = re.compile(rf"probe/(?!online_)(\w+_)?validation_({'|'.join(MEASURES)})")
"""Whether a run has it depends on its probes; `missing_metric` looks at them."""
_OF_A_MONITOR = re.compile(end_name(r"\w+"))
"""Likewise on its monitors."""
_TEST = re.compile(r"(^|[/_])test_")
_LESS_IS_BETTER = re.compile(r"loss|error|seconds|memory")
_CONTROL = re.compile(r"(random_encoder|raw_pixels)/")


def refuse_objective(metric: str) -> str | None:
    """Why an ablation cannot be decided by this metric, or None where it can."""
    refused = _refuse_measure(metric)
    known = metric in OBJECTIVES or _OF_A_PROBE.fullmatch(metric) or _OF_A_MONITOR.fullmatch(metric)
    if refused is None and not known:
        return f"no run has a metric {metric!r} in its result{did_you_mean(metric, OBJECTIVES)}"
    return refused


def missing_metric(metric: str, pipeline: Pipeline) -> str | None:
    """Why the runs of a pipeline do not have a metric of a probe or a monitor, or None where they have it."""
    of_probes, of_monitors = validation_metrics(pipeline), end_metrics(pipeline)
    if metric.startswith("probe/") and metric not in of_probes:
        return (
            f"metric {metric!r} is of no probe in probe.method and probe.additional, which give "
            f"{', '.join(of_probes)}; add the probe to probe.additional, or use one of these"
        )
    if _OF_A_MONITOR.fullmatch(metric) and metric not in of_monitors:
        given = f"which gives {', '.join(of_monitors)}" if of_monitors else "which is empty"
        return f"metric {metric!r} is of no monitor in monitors.end, {given}; add it there, or use another metric"
    return None


def direction_of(metric: str) -> Direction:
    """Which way of a metric is better, also of one that is logged while a run goes on, such as `train/loss`.

    Raises:
        ConfigError: if nothing may be decided by it.
    """
    refused = _refuse_measure(metric)
    if refused is not None:
        raise ConfigError(refused)
    monitored = known_metrics().get(metric)
    if monitored is not None and monitored.reading.better is not None:
        return monitored.reading.better
    return OBJECTIVES.get(metric, "minimize" if _LESS_IS_BETTER.search(metric) else "maximize")


def _refuse_measure(metric: str) -> str | None:
    """Why no choice may rest on what this metric measures, or None."""
    if _TEST.search(metric):
        return (
            f"metric {metric!r} is of the test split, which chooses nothing: it is scored once, at the end; "
            "use probe/validation_accuracy, the table has a column of test accuracies all the same"
        )
    monitored = known_metrics().get(metric)
    if monitored is not None and monitored.reading.better is None:
        return (
            f"metric {metric!r} has no better direction: neither a larger nor a smaller {monitored.reading.title} is "
            "said to be better; use probe/validation_accuracy, or another monitor"
        )
    if _CONTROL.match(metric):
        return (
            f"metric {metric!r} is that of a control, which no arm improves; use probe/validation_accuracy, "
            "the table has the controls all the same"
        )
    return None
