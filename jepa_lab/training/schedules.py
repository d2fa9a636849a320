"""Learning rate, weight decay and EMA momentum as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field, model_validator

from jepa_lab.errors import Key
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.training.ema.base import EmaSchedule


class OptimizerSettings(ComponentParams):
    """AdamW and its schedules, the `optimizer` section.

    Source: Assran et al. 2023, arXiv:2301.08243, app. A, and the released code.
    """

    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate, reached at the end of the warm-up.")
    start_learning_rate: float = Field(2e-4, ge=0, description="Learning rate that the warm-up starts from.")
    final_learning_rate: float = Field(1e-6, ge=0, description="Learning rate that the cosine ends at.")
    warmup_fraction: float | None = Field(
        None, ge=0, le=1, description="Warm-up as a share of all epochs; give this or warmup_epochs."
    )
    warmup_epochs: float | None = Field(
        None,
        ge=0,
        description="Warm-up in epochs; give this or warmup_fraction (default: 0.1 of the epochs).",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Layer-wise learning-rate decay of the encoder: each block learns at this many times the rate of "
        "the block above it, the last one at the full rate, patch embedding and learned positions below the first. "
        "Weight decay, which AdamW multiplies with the learning rate, shrinks alike.",
    )
    layer_decay_embedding: bool = Field(
        True,
        strict=True,
        description="Whether layer_decay slows patch embedding and learned positions down, as a layer below the first "
        "block; false lets them learn at the full rate.",
    )
    weight_decay: float = Field(
        0.04,
        ge=0,
        description="Weight decay at the start; of biases, norms and other 1-D parameters only by choice "
        "(decay_biases_and_norms).",
    )
    final_weight_decay: float | None = Field(
        None, ge=0, description="Weight decay at the end of a cosine; null keeps it constant."
    )
    predictor_weight_decay: float | None = Field(
        None, ge=0, description="Weight decay of the predictor at the start; null is that of the encoder at every step."
    )
    predictor_final_weight_decay: float | None = Field(
        None,
        ge=0,
        description="Weight decay of the predictor at the end of a cosine; null keeps predictor_weight_decay constant, "
        "whatever the encoder's does.",
    )
    schedule_stretch: float = Field(
        1.0,
        ge=1,
        le=1000,
        description="Schedules are laid out for this many times the training, and cut off at its end.",
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's decay rates of the two moments.")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    decay_mask_token: bool = Field(True, description="Apply weight decay to the mask token, as the released code does.")
    decay_positions: bool = Field(True, description="Apply weight decay to learned position embeddings.")
    decay_biases_and_norms: bool = Field(
        False, strict=True, description="Apply weight decay to biases, norms and other 1-D parameters, too."
    )

    @model_validator(mode="after")
    def _check(self) -> OptimizerSettings:
        if self.warmup_fraction is not None and self.warmup_epochs is not None:
            fraction, epochs = Key("warmup_fraction"), Key("warmup_epochs")
            raise broken_rule(
                "give ", fraction, " or ", epochs, ", not both; set one to null, as in ", fraction, "=null"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise broken_rule(Key("betas"), f" must lie in [0, 1), got {self.betas}")
        if self.predictor_final_weight_decay is not None and self.predictor_weight_decay is None:
            raise broken_rule(
                Key("predictor_final_weight_decay"),
                " needs ",
                Key("predictor_weight_decay"),
                ", where its cosine starts; give both, or neither to let the predictor follow the encoder",
            )
        return self

    def warmup(self, epochs: int) -> float:
        """Length of the warm-up in epochs."""
        if self.warmup_epochs is not None:
            return self.warmup_epochs
        return epochs * (0.1 if self.warmup_fraction is None else self.warmup_fraction)


@dataclass(frozen=True)
class Schedules:
    """The three schedules of a run.

    Steps count from 1: the schedules are advanced before the forward pass, as in the released code.
    """

    settings: OptimizerSettings
    ema: EmaSchedule
    epochs: int
    steps_per_epoch: int

    @property
    def warmup_steps(self) -> int:
        """W, the step at which the peak is reached."""
        return int(self.settings.warmup(self.epochs) * self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        """T, the step at which the stretched schedules end."""
        return int(self.settings.schedule_stretch * self.epochs * self.steps_per_epoch)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine. With no room after the warm-up it ends at the peak."""
        peak, warmup = self.settings.learning_rate, self.warmup_steps
        if step < warmup:
            start = self.settings.start_learning_rate
            return start + step / warmup * (peak - start)
        if warmup >= self.total_steps:
            return peak
        progress = (step - warmup) / (self.total_steps - warmup)
        return _half_cosine(peak, self.settings.final_learning_rate, progress)

    def weight_decay(self, step: int) -> float:
        """Half a cosine from the first to the final weight decay, never beyond the final one."""
        return self._decay_between(self.settings.weight_decay, self.settings.final_weight_decay, step)

    def predictor_weight_decay(self, step: int) -> float:
        """The predictor's own half cosine, or the encoder's weight decay."""
        first = self.settings.predictor_weight_decay
        if first is None:
            return self.weight_decay(step)
        return self._decay_between(first, self.settings.predictor_final_weight_decay, step)

    def _decay_between(self, first: float, final: float | None, step: int) -> float:
        return _half_cosine(first, first if final is None else final, min(1.0, step / self.total_steps))

    def ema_momentum(self, step: int) -> float:
        """Momentum of the EMA update after optimizer step `step`."""
        stretched = self.settings.schedule_stretch * self.epochs * self.steps_per_epoch
        return self.ema.momentum((step - 1) / stretched)


def _half_cosine(first: float, final: float, progress: float) -> float:
    return final + (first - final) * (1 + math.cos(math.pi * progress)) / 2
