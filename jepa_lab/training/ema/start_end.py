"""What the schedules from a start to an end share: their parameters and the warm-up before them."""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field, model_validator

from jepa_lab.errors import Key
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.training.ema.base import EmaSchedule


class StartEndParams(ComponentParams):
    """Momentum at the first update and, where it would arrive, after the last; before both a warm-up, by choice."""

    start: float = Field(0.996, ge=0, le=1, description="Momentum of the first update after the warm-up.")
    end: float = Field(1.0, ge=0, le=1, description="Momentum that the schedule moves towards.")
    warmup_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the schedule (the training times optimizer.schedule_stretch) before the momentum leaves "
        "`start`; the way to `end` takes the rest.",
    )
    warmup_start: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Momentum of the first update of the warm-up, from which it rises linearly to `start`; null holds "
        "it at `start`.",
    )

    @model_validator(mode="after")
    def _check(self) -> StartEndParams:
        if self.warmup_start is None:
            return self
        if self.warmup_fraction == 0:
            raise broken_rule(
                Key("warmup_start"), " needs a warm-up: give ", Key("warmup_fraction"), " > 0, or leave the first out"
            )
        if self.warmup_start > self.start:
            raise broken_rule(
                Key("warmup_start"),
                " must be at most ",
                Key("start"),
                f", got {self.warmup_start} and {self.start}; a warm-up rises: lower the first, or leave it out",
            )
        return self


class StartEndEma(EmaSchedule):
    """A schedule that goes from start to end, after a warm-up where there is one.

    The warm-up is held at `start` unless `warmup_start` is given: where it is described with a `start` and a length
    alone, `start` is called the initial momentum, so nothing lies below it. A rise from a lower value is DINO's
    scheduler (Caron et al. 2021, arXiv:2104.14294), whose default is to rise from 0.
    """

    Params: type[ComponentParams] = StartEndParams
    params: StartEndParams

    def momentum(self, progress: float) -> float:
        warmup, start = self.params.warmup_fraction, self.params.start
        if progress < warmup:
            first = start if self.params.warmup_start is None else self.params.warmup_start
            return first + progress / warmup * (start - first)
        return self.after_warmup((progress - warmup) / (1 - warmup))

    @abstractmethod
    def after_warmup(self, share: float) -> float:
        """Momentum at a share of the way from start to end, in [0, 1)."""
