"""What every schedule of the EMA keeps."""

from __future__ import annotations

from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.steps import InTheStep
from jepa_lab.training.ema.base import EmaSchedule


class EmaScheduleContract(InTheStep):
    """Tests of an `EmaSchedule`."""

    overrides = ("ema_momentum={}",)

    def test_momentum_is_a_share_at_every_moment_and_never_falls(
        self, entry: Entry[EmaSchedule], params: ComponentParams
    ) -> None:
        schedule = entry.component(params)
        values = [schedule.momentum(step / 100) for step in range(100)]
        assert all(0 <= value <= 1 for value in values)
        assert values == sorted(values)
