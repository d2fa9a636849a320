"""What an EMA momentum schedule is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jepa_lab.contracts import require
from jepa_lab.registry import Component, ComponentParams, Registry


class EmaSchedule(Component[None], ABC):
    """Momentum of the target encoder's exponential moving average over training.

    Args:
        params: the schedule's own `Params`.
    """

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @abstractmethod
    def momentum(self, progress: float) -> float:
        """Momentum at a share of training.

        Args:
            progress: updates done so far divided by all updates, in [0, 1).
        Returns:
            EMA decay in [0, 1]; 1 freezes the target encoder.
        """


_LOOKED_AT = 100


def require_momentum(schedule: EmaSchedule) -> None:
    """Refuse a schedule that gives no momentum at some of a hundred moments of training.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    for moment in range(_LOOKED_AT):
        progress = moment / _LOOKED_AT
        value = schedule.momentum(progress)
        fits = isinstance(value, int | float) and 0 <= value <= 1
        require(schedule, f"momentum({progress:g})", fits, value, "a float in [0, 1]")


EMA_SCHEDULES: Registry[EmaSchedule] = Registry("ema_momentum", EmaSchedule)
