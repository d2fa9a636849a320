"""Measuring the monitors of a pipeline: at probe epochs, and at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.images import Images
from jepa_lab.monitors.base import (
    ALWAYS_MEASURED,
    MONITORS,
    ChosenMonitor,
    curve_name,
    end_count_name,
    end_name,
    measure,
)
from jepa_lab.monitors.observed import Observed
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams


def build_monitors(chosen: Iterable[ComponentParams]) -> list[ChosenMonitor]:
    """The monitors of a setting."""
    entries = [(params, MONITORS.entry_of(params)) for params in chosen]
    return [ChosenMonitor(entry.name, entry.component(params)) for params, entry in entries]


def monitors_at_probe_epochs(pipeline: Pipeline) -> list[ChosenMonitor]:
    """Those that are always measured, then those that the pipeline chooses."""
    always = [MONITORS.get(name).config_type() for name in ALWAYS_MEASURED]
    return build_monitors((*always, *pipeline.monitors.probe_epochs))


def monitors_at_end(pipeline: Pipeline) -> list[ChosenMonitor]:
    """Those that look at training images."""
    return build_monitors(pipeline.monitors.end)


def curve_values(monitors: Iterable[ChosenMonitor], observed: Observed) -> dict[str, float | None]:
    """What the monitors read at a probe epoch, by the names of the curves."""
    return {curve_name(key): value for chosen in monitors for key, value in measure(chosen, observed)[0].items()}


def end_values(monitors: Iterable[ChosenMonitor], observed: Observed) -> dict[str, float | None]:
    """What the monitors read at the end, by the names of metrics, each with the number of images that it looked at."""
    found: dict[str, float | None] = {}
    for chosen in monitors:
        values, num_images = measure(chosen, observed)
        found |= {end_name(key): value for key, value in values.items()}
        found[end_count_name(chosen.name)] = float(num_images)
    return found


def end_metrics(pipeline: Pipeline) -> list[str]:
    """The numbers of monitors, without the counts of images, that a run of this pipeline has in its result."""
    return [end_name(key) for chosen in monitors_at_end(pipeline) for key in chosen.monitor.readings]


def some_images(images: Images, count: int, seed: int, purpose: str) -> Images:
    """At most so many of the images, at random and in their order: files often come sorted by class.

    Args:
        seed, purpose: see `build_generator`; of the data, not of the run, so that all seeds look at the same images.
    """
    return images[some_places(len(images), count, seed, purpose)]


def some_places(available: int, count: int, seed: int, purpose: str) -> torch.Tensor:
    """The indices of `some_images`, in increasing order."""
    chosen = torch.randperm(available, generator=build_generator(seed, purpose))
    return chosen[:count].sort().values
