"""What the monitors of trials are called, and how many images they are of."""

from __future__ import annotations

import jepa_lab.monitors  # noqa: F401  (registers them)
from jepa_lab.monitors.base import NUM_CURVE_IMAGES, known_metrics
from jepa_lab.reports.content import ReportInput

LOSS = "validation/loss"


def monitor_title(metric: str, content: ReportInput) -> str:
    """What a monitor is called, and the images that it is of: how many, where that is the same in all trials."""
    if metric == LOSS:
        return "validation loss"
    known = known_metrics().get(metric)
    if known is None:
        return metric
    count = num_images(content, known.num_images)
    return f"{known.reading.title}, {'' if count is None else f'{count:,} '}{known.images}"


def num_images(content: ReportInput, metric: str = NUM_CURVE_IMAGES) -> int | None:
    """How many images a monitor looked at; None where trials differ in it, or do not say."""
    counts = set(content.trials[metric].dropna()) if metric in content.trials else set()
    return int(counts.pop()) if len(counts) == 1 else None
