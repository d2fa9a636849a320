"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jepa_lab.registry import FAMILIES


@pytest.fixture(autouse=True)
def registries_as_shipped() -> Iterator[None]:
    """Forget the components that a test registers."""
    before = {family: dict(registry._entries) for family, registry in FAMILIES.items()}
    yield
    changed = [family for family in before if FAMILIES[family]._entries != before[family]]
    for family in changed:
        FAMILIES[family]._entries = before[family]
    if changed:
        from jepa_lab.config.pipeline import rebuild_schema

        rebuild_schema()
