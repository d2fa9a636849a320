"""What every registered monitor must keep."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

import jepa_lab.monitors  # noqa: F401  (registers them)
from jepa_lab.errors import RunStopped
from jepa_lab.monitors.base import MONITORS, ChosenMonitor, Monitor, measure, require_readings
from jepa_lab.monitors.observed import Observed
from jepa_lab.registry import Entry
from tests.unit.monitors.observing import make_observed, random_images

SHORT: dict[str, dict[str, Any]] = {"lidar": {"images": 40, "views": 3}, "alpha_req": {"first": 1, "last": 10}}
"""Parameters with which the monitors that ship take no time, and read a number off few features."""

every_monitor = pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in MONITORS])


def build(entry: Entry[Monitor]) -> ChosenMonitor:
    return ChosenMonitor(entry.name, entry.component(entry.params_type(**SHORT.get(entry.name, {}))))


def read(entry: Entry[Monitor], observed: Observed) -> dict[str, float | None]:
    return measure(build(entry), observed)[0]


@every_monitor
def test_numbers_are_finite_and_belong_to_their_monitor(entry: Entry[Monitor]) -> None:
    chosen = build(entry)
    require_readings(chosen)
    found, num_images = measure(chosen, make_observed())
    assert list(found) == list(chosen.monitor.readings)
    assert all(value is not None and math.isfinite(value) for value in found.values())
    assert num_images == chosen.monitor.num_images(60) <= 60
    assert all(reading.title for reading in chosen.monitor.readings.values())


@every_monitor
def test_numbers_are_the_same_whether_patches_are_held_or_not(entry: Entry[Monitor]) -> None:
    held = make_observed()
    assert held.patches is not None
    assert read(entry, held) == pytest.approx(read(entry, make_observed()), rel=1e-4)


@every_monitor
def test_a_monitor_is_repeated_exactly(entry: Entry[Monitor]) -> None:
    found = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        found.append(read(entry, make_observed()))
    assert found[0] == found[1]


@every_monitor
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_an_encoder_is_left_as_it_was_and_nothing_is_drawn(entry: Entry[Monitor], mode: bool) -> None:
    observed = make_observed()
    encoder = observed.encoder.train(mode)
    before, state = copy.deepcopy(encoder.state_dict()), torch.get_rng_state()
    read(entry, observed)
    assert torch.equal(state, torch.get_rng_state())
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training == mode for module in encoder.modules())
    assert all(parameter.grad is None for parameter in encoder.parameters())


@every_monitor
@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_images_and_images_that_are_all_the_same_have_a_number_or_none(entry: Entry[Monitor], count: int) -> None:
    for images in (random_images(count), random_images(1).expand(count, -1, -1, -1).contiguous()):
        assert all(value is None or math.isfinite(value) for value in read(entry, make_observed(images)).values())


@every_monitor
def test_features_that_are_not_finite_are_refused(entry: Entry[Monitor]) -> None:
    observed = make_observed()
    observed.encoder.norm.bias.data[0] = math.nan
    with pytest.raises(RunStopped, match="not finite"):
        read(entry, observed)
