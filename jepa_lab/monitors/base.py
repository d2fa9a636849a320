"""What a monitor is: numbers that are read off an encoder's features without labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from jepa_lab.contracts import require
from jepa_lab.monitors.observed import Observed
from jepa_lab.registry import Component, ComponentParams, Registry

ALWAYS_MEASURED = ("rankme", "feature_std", "image_variance_ratio")
"""At every probe epoch, whatever `monitors.probe_epochs` holds: the rule that judges a run collapsed reads them."""

NUM_CURVE_IMAGES = "rankme_images"
"""The metric that says how many validation images the curves, `rankme_start` and `rankme_end` are of."""

PREFIX = "monitor/"
"""Of the names of metrics: `monitor/rankme` is a curve."""
_OF_TRAINING_IMAGES = "_train"
_NUM_IMAGES = "_images"
_NOT_MONITORS = (f"{PREFIX}collapsed",)


@dataclass(frozen=True)
class Reading:
    """One number of a monitor.

    Attributes:
        title: for people, such as "centred RankMe".
        better: which way features are said to be better; None where neither is, as for a number that is best at 1.
    """

    title: str
    better: Literal["maximize", "minimize"] | None


class Monitor(Component[None], ABC):
    """Reads numbers off an encoder's features without labels.

    The same images and masks are looked at for every seed and at every epoch. The encoder is left as it was, and
    nothing is drawn from the run's generators.

    Args:
        params: the monitor's own `Params`.
    """

    readings: ClassVar[Mapping[str, Reading]]
    """By key: the monitor's own name, or what begins with it and an underscore."""

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    def num_images(self, available: int) -> int:
        """How many of the images it looks at."""
        return available

    @abstractmethod
    def measure(self, observed: Observed) -> dict[str, float | None]:
        """A number for each key of `readings`; None where the images or features are too few for one.

        Args:
            observed: the encoder, and `num_images` images.
        """


@dataclass(frozen=True)
class ChosenMonitor:
    """A monitor with its name in the registry."""

    name: str
    monitor: Monitor


def measure(chosen: ChosenMonitor, observed: Observed) -> tuple[dict[str, float | None], int]:
    """What a monitor reads, and how many images it has looked at.

    Raises:
        PluginError, AssertionError: it does not return what it promises, see `require`.
        RunStopped: a feature is not finite.
    """
    monitor = chosen.monitor
    seen = observed.spread(monitor.num_images(len(observed.images)))
    found = monitor.measure(seen)
    keys = list(monitor.readings)
    require(monitor, "measure", isinstance(found, dict) and list(found) == keys, found, f"a dict with the keys {keys}")
    for key, value in found.items():
        number = value is None or (isinstance(value, int | float) and math.isfinite(value))
        require(monitor, f"measure ({key})", number, value, "a finite number or None")
    return found, len(seen.images)


def require_readings(chosen: ChosenMonitor) -> None:
    """Refuse a monitor whose numbers could be taken for those of another one, before anything is trained for it.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    readings = chosen.monitor.readings
    fits = isinstance(readings, Mapping) and all(isinstance(each, Reading) for each in readings.values())
    require(chosen.monitor, "readings", fits, readings, "a mapping from keys to Reading")
    keys = list(readings)
    own = bool(keys) and all(key == chosen.name or key.startswith(f"{chosen.name}_") for key in keys)
    expected = f"keys that are {chosen.name!r}, or begin with {chosen.name + '_'!r}"
    require(chosen.monitor, "readings", own, keys, expected)


def curve_name(key: str) -> str:
    """The metric of a reading at probe epochs."""
    return f"{PREFIX}{key}"


def end_name(key: str) -> str:
    """The metric of a reading of training images at the end of a run."""
    return f"{PREFIX}{key}{_OF_TRAINING_IMAGES}"


def end_count_name(monitor: str) -> str:
    """The metric that says how many training images a monitor has looked at."""
    return f"{end_name(monitor)}{_NUM_IMAGES}"


def is_reading(metric: str) -> bool:
    """Whether a metric is a number of a monitor, rather than a count of images or the verdict on a collapse."""
    return metric.startswith(PREFIX) and not metric.endswith(_NUM_IMAGES) and metric not in _NOT_MONITORS


MONITORS: Registry[Monitor] = Registry("monitor", Monitor)


@dataclass(frozen=True)
class KnownMetric:
    """A metric that is a reading of a registered monitor.

    Attributes:
        images: what it is of. num_images: the metric that says of how many.
    """

    reading: Reading
    images: Literal["validation images", "training images"]
    num_images: str


def known_metrics() -> dict[str, KnownMetric]:
    """Of every registered monitor, by metric: the curves first, then the numbers at the end."""
    found = [(entry.name, key, each) for entry in MONITORS for key, each in entry.component.readings.items()]
    curves = {curve_name(key): KnownMetric(each, "validation images", NUM_CURVE_IMAGES) for _, key, each in found}
    ends = {end_name(key): KnownMetric(each, "training images", end_count_name(name)) for name, key, each in found}
    return curves | ends
