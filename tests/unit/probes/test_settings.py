"""Tests of the probe's settings."""

from __future__ import annotations

from typing import Any

import pytest

from jepa_lab.monitors.collapse import CollapseSettings
from jepa_lab.probes.settings import ProbeSettings


@pytest.mark.parametrize(("layers", "count"), [("last", 1), ("last_four", 4)])
def test_layers_say_how_many_blocks_are_used(layers: Any, count: int) -> None:
    assert ProbeSettings(layers=layers).num_layers == count


@pytest.mark.parametrize("settings", [ProbeSettings, CollapseSettings])
def test_every_field_is_described(settings: type[ProbeSettings] | type[CollapseSettings]) -> None:
    assert all(field.description for field in settings.model_fields.values())
