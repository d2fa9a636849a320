"""EMA momentum that stays the same."""

from __future__ import annotations

from pydantic import Field

from jepa_lab.registry import ComponentParams
from jepa_lab.training.ema.base import EMA_SCHEDULES, EmaSchedule


class ConstantParams(ComponentParams):
    """Parameters of `constant`."""

    value: float = Field(0.996, ge=0, le=1, description="Momentum of every update; 1 freezes the target encoder.")


@EMA_SCHEDULES.register(
    "constant",
    summary="The same momentum at every update.",
    source="Tarvainen and Valpola 2017, arXiv:1703.01780 (mean teacher)",
)
class ConstantEma(EmaSchedule):
    """m = value."""

    Params = ConstantParams
    params: ConstantParams

    def momentum(self, progress: float) -> float:
        return self.params.value
