"""EMA momentum that moves linearly from start to end."""

from __future__ import annotations

from pydantic import Field

from jepa_lab.registry import ComponentParams
from jepa_lab.training.ema.base import EMA_SCHEDULES, EmaSchedule


class StartEndParams(ComponentParams):
    """Momentum at the first update and, where it would arrive, after the last."""

    start: float = Field(0.996, ge=0, le=1, description="Momentum of the first update.")
    end: float = Field(1.0, ge=0, le=1, description="Momentum that the schedule moves towards.")


@EMA_SCHEDULES.register(
    "linear",
    summary="Momentum rises linearly from start to end.",
    source="Assran et al. 2023, arXiv:2301.08243, app. A (0.996 to 1)",
)
class LinearEma(EmaSchedule):
    """m = start + progress (end - start)."""

    Params = StartEndParams
    params: StartEndParams

    def momentum(self, progress: float) -> float:
        return self.params.start + progress * (self.params.end - self.params.start)
