"""Non-finite numbers never reach the weights: the device refuses the update, the host reads about it later."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MAX_FP16_SKIPS = 19
"""In a row, by default: the loss scale begins too high for many models, and each skip halves it."""

_GROWTH_INTERVAL_STEPS = 2000


@dataclass
class FiniteGate:
    """Decides on the device whether an update may be applied, without the host waiting.

    A step whose loss or gradient is not finite is refused. After more than `max_skipped` such steps in a row the gate
    stays shut, so that the weights are those of the last good step until the host reads the flag and ends the run.

    Attributes:
        max_skipped: refused steps in a row after which training still goes on.
        consecutive: scalar int64, refused steps in a row.
        stopped_at: scalar int64, step of the first refusal of the row that shut the gate; 0 while it is open.
        loss_scale: scalar float32 that the loss is multiplied with; 1 unless `scaling`.
        good_steps: scalar int64, steps since the scale last changed.
    """

    max_skipped: int
    scaling: bool
    consecutive: Tensor
    stopped_at: Tensor
    loss_scale: Tensor
    good_steps: Tensor

    @classmethod
    def open(cls, device: torch.device, precision: str, max_skipped: int | None = None) -> FiniteGate:
        """A gate for a new run; fp16 scales the loss.

        Args:
            max_skipped: by default none, and under fp16 as many as it takes to find its loss scale.
        """
        scaling = precision == "fp16"
        if max_skipped is None:
            max_skipped = _MAX_FP16_SKIPS if scaling else 0

        def zero() -> Tensor:
            return torch.zeros((), dtype=torch.int64, device=device)

        scale = torch.full((), 65536.0 if scaling else 1.0, device=device)
        return cls(max_skipped, scaling, zero(), zero(), scale, zero())

    def judge(self, loss: Tensor, gradient_norm: Tensor, step: Tensor | int) -> Tensor:
        """Whether to refuse this step's update: scalar float32, 0 or 1.

        Args:
            step: number of the step; a scalar tensor where it must not be baked into a graph.

        The gate's own tensors change in place, so that whoever holds them sees what it decided.
        """
        bad = ~(torch.isfinite(loss) & torch.isfinite(gradient_norm))
        self.consecutive.copy_(torch.where(bad, self.consecutive + 1, 0))
        shuts = (self.consecutive > self.max_skipped) & (self.stopped_at == 0)
        self.stopped_at.copy_(torch.where(shuts, step - self.consecutive + 1, self.stopped_at))
        if self.scaling:
            self._adapt_scale(bad)
        return (bad | (self.stopped_at > 0)).float()

    def _adapt_scale(self, bad: Tensor) -> None:
        """Halve the scale after a refusal, double it after a long good stretch (Micikevicius et al. 2018)."""
        self.good_steps.copy_(torch.where(bad, 0, self.good_steps + 1))
        grows = self.good_steps >= _GROWTH_INTERVAL_STEPS
        self.loss_scale.mul_(torch.where(bad, 0.5, torch.where(grows, 2.0, 1.0)))
        self.good_steps.masked_fill_(grows, 0)

    def state(self) -> dict[str, Tensor]:
        """Tensors to put into a checkpoint."""
        return {
            "consecutive": self.consecutive,
            "stopped_at": self.stopped_at,
            "loss_scale": self.loss_scale,
            "good_steps": self.good_steps,
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over a checkpoint's tensors."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


class StepSums:
    """Sums over steps, without the host waiting: the loss since the last row of metrics, refused steps of the run.

    Attributes:
        skipped: scalar float32, steps of the whole run that the gate refused.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._accepted = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)

    def add(self, loss: Tensor, refused: Tensor) -> None:
        """Take in a step's loss and the gate's judgement of it, both scalar."""
        self._loss += torch.where(refused > 0, 0.0, loss.float())
        self._accepted += 1 - refused
        self.skipped += refused

    def skipped_steps(self) -> int:
        """Steps of the whole run that the gate refused, read by the host."""
        return int(self.skipped)

    def mean_loss(self) -> float:
        """Of the accepted steps since `begin_row`, read by the host; NaN where no step was accepted."""
        return (self._loss / self._accepted).item()

    def begin_row(self) -> None:
        """Begin the mean loss anew."""
        self._loss.zero_()
        self._accepted.zero_()

    def state(self) -> dict[str, Tensor]:
        """Tensors to put into a checkpoint."""
        return {"loss_sum": self._loss, "accepted_steps": self._accepted, "skipped": self.skipped}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over a checkpoint's tensors."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
