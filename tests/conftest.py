"""Fixtures of all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from jepa_lab.registry import FAMILIES

# Whoever runs the tests may work with a tracking server, which must not get their runs. At once, because fixtures of
# modules come before those of tests, and the processes that tests start inherit it.
for _name in [name for name in os.environ if name.startswith(("MLFLOW_", "JEPA_LAB_TRACKING_URI"))]:
    del os.environ[_name]

# Nor may they find what an earlier run has kept, or leave anything beside it.
_cache = tempfile.TemporaryDirectory(prefix="jepa-lab-tests-")
os.environ["JEPA_LAB_CACHE"] = _cache.name


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
