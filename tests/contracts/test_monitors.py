"""What every registered monitor must keep."""

from typing import Any

import jepa_lab.monitors  # noqa: F401  (registers them)
from jepa_lab.monitors.base import MONITORS
from jepa_lab.testing import MonitorContract
from tests.contracts.registered import each_of, settings_of

SHORT: dict[str, dict[str, Any]] = {"lidar": {"images": 40, "views": 3}, "alpha_req": {"first": 1, "last": 10}}
"""Parameters with which the monitors that ship take no time, and read a number off few features."""


class TestMonitors(MonitorContract):
    entry = each_of(MONITORS)
    params = settings_of(SHORT)
