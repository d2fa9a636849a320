"""EMA momentum that moves from start to end along half a cosine."""

from __future__ import annotations

import math

from jepa_lab.training.ema.base import EMA_SCHEDULES, EmaSchedule
from jepa_lab.training.ema.linear import StartEndParams


@EMA_SCHEDULES.register(
    "cosine",
    summary="Momentum moves from start to end along half a cosine.",
    source="Grill et al. 2020, arXiv:2006.07733 (BYOL), sec. 3.2",
)
class CosineEma(EmaSchedule):
    """m = end - (end - start) (1 + cos(pi progress)) / 2."""

    Params = StartEndParams
    params: StartEndParams

    def momentum(self, progress: float) -> float:
        gap = self.params.end - self.params.start
        return self.params.end - gap * (1 + math.cos(math.pi * progress)) / 2
