"""EMA momentum that moves from start to end along half a cosine."""

from __future__ import annotations

import math

from jepa_lab.training.ema.base import EMA_SCHEDULES
from jepa_lab.training.ema.start_end import StartEndEma, StartEndParams


@EMA_SCHEDULES.register(
    "cosine",
    summary="Momentum moves from start to end along half a cosine.",
    source="Grill et al. 2020, arXiv:2006.07733 (BYOL), sec. 3.2",
)
class CosineEma(StartEndEma):
    """m = end - (end - start) (1 + cos(pi share)) / 2."""

    Params = StartEndParams

    def after_warmup(self, share: float) -> float:
        gap = self.params.end - self.params.start
        return self.params.end - gap * (1 + math.cos(math.pi * share)) / 2
