"""Where the time of a command goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jepa_lab.training.phases import PHASES, PhaseSeconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("jepa_lab.training.phases.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_phases_add_up_and_those_that_were_not_needed_are_zero(clock: list[float]) -> None:
    phases = PhaseSeconds()
    for _ in range(2):
        with phases.of("checkpoints"):
            clock[0] += 3
    phases.add("loading", 2.5)
    told = phases.to_dict(total=9.0)
    assert list(told) == [*PHASES, "final_probe_rows", "total"]
    assert {name: value for name, value in told.items() if value} == {"loading": 2.5, "checkpoints": 6.0, "total": 9.0}


def test_the_rows_of_the_final_probe_are_parts_of_it(clock: list[float]) -> None:
    phases = PhaseSeconds()
    for row, seconds in {"trained": 4.0, "raw_pixels": 1.0}.items():
        with phases.of_row(row):
            clock[0] += seconds
    told = phases.to_dict(total=5.0)
    assert told["final_probe_rows"] == {"trained": 4.0, "raw_pixels": 1.0}
    assert told["final_probe"] == 5.0


def test_a_phase_that_fails_is_not_counted(clock: list[float]) -> None:
    phases = PhaseSeconds()

    def fail() -> None:
        with phases.of("checkpoints"):
            clock[0] += 3
            raise ValueError("full disk")

    with pytest.raises(ValueError, match="full disk"):
        fail()
    assert "checkpoints" not in phases
