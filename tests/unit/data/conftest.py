from collections.abc import Iterator

import pytest

from tests.unit.data.loopback import Served, serve


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serve(monkeypatch) as served:
        yield served
