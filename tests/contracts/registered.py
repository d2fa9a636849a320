"""The contract classes of jepa_lab.testing, for every component that is registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from jepa_lab.registry import ComponentParams, Entry

Settings = Mapping[str, Mapping[str, Any]]


def each_of(entries: Iterable[Entry[Any]]) -> Any:
    """A fixture `entry` for a contract class: one component after another."""

    @pytest.fixture(params=[pytest.param(entry, id=entry.name) for entry in entries])
    def entry(self: object, request: pytest.FixtureRequest) -> Entry[Any]:
        return request.param

    return entry


def settings_of(settings: Settings) -> Any:
    """A fixture `params` for a contract class: the settings of each component by its name."""

    @pytest.fixture
    def params(self: object, entry: Entry[Any]) -> ComponentParams:
        return entry.config_type(**settings.get(entry.name, {}))

    return params
