"""Where the time of a command goes: seconds of each phase, for result.json."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

LOADING = "loading"
PREPARING = "preparing"
FIRST_EVALUATION = "evaluation_before_training"
FIRST_STEP = "first_step"
TRAINING = "training"
PROBE_EPOCHS = "probe_epochs"
CHECKPOINTS = "checkpoints"
FINAL_MONITORS = "final_monitors"
FINAL_PROBE = "final_probe"
FIGURES = "figures"
PHASES = (
    LOADING,
    PREPARING,
    FIRST_EVALUATION,
    FIRST_STEP,
    TRAINING,
    PROBE_EPOCHS,
    CHECKPOINTS,
    FINAL_MONITORS,
    FINAL_PROBE,
    FIGURES,
)
"""In the order in which they begin."""


class PhaseSeconds:
    """Seconds of wall clock by phase, of one command: of a run that was resumed, since it was resumed.

    Phases do not overlap, so that what they do not add up to has no name yet.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._rows: dict[str, float] = {}

    def add(self, phase: str, seconds: float) -> None:
        """A phase took so long, this time."""
        assert phase in PHASES, phase
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Add what the block takes to a phase, unless it fails."""
        began = time.monotonic()
        yield
        self.add(phase, time.monotonic() - began)

    @contextmanager
    def of_row(self, row: str) -> Iterator[None]:
        """Add what the block takes to a row of the final probe."""
        before = self._seconds.get(FINAL_PROBE, 0.0)
        with self.of(FINAL_PROBE):
            yield
        self._rows[row] = self._seconds[FINAL_PROBE] - before

    def __contains__(self, phase: str) -> bool:
        return phase in self._seconds

    def to_dict(self, total: float) -> dict[str, object]:
        """As JSON values: every phase (0 for one that was not needed), the rows of the final probe, and the total."""
        phases = {phase: self._seconds.get(phase, 0.0) for phase in PHASES}
        return {**phases, "final_probe_rows": dict(self._rows), "total": total}
