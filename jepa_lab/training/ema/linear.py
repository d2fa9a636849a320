"""EMA momentum that moves linearly from start to end."""

from __future__ import annotations

from jepa_lab.training.ema.base import EMA_SCHEDULES
from jepa_lab.training.ema.start_end import StartEndEma, StartEndParams


@EMA_SCHEDULES.register(
    "linear",
    summary="Momentum rises linearly from start to end.",
    source="Assran et al. 2023, arXiv:2301.08243, app. A (0.996 to 1)",
)
class LinearEma(StartEndEma):
    """m = start + share (end - start)."""

    Params = StartEndParams

    def after_warmup(self, share: float) -> float:
        return self.params.start + share * (self.params.end - self.params.start)
