"""What all tests of whole runs and sweeps share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.unpainted import unpainted


@pytest.fixture(scope="module", autouse=True)
def figures_are_not_painted(request: pytest.FixtureRequest) -> Iterator[None]:
    """In this process; modules whose tests look at figures are marked `painted`."""
    if request.node.get_closest_marker("painted") is not None:
        yield
        return
    with unpainted():
        yield
