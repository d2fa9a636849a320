"""AdamW over the parameter groups, with numbers that are tensors, and updates that the device itself can refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.models.ijepa import IJepa
from jepa_lab.training.parameter_groups import Decay, group_parameters
from jepa_lab.training.schedules import OptimizerSettings, Schedules


@dataclass(frozen=True)
class ScheduledGroup:
    """How the numbers of a parameter group follow from the schedules."""

    learning_rate_scale: float
    decay: Decay

    def weight_decay(self, schedules: Schedules, step: int) -> float:
        """Weight decay of the group's parameters at a step."""
        if self.decay is Decay.NONE:
            return 0.0
        return schedules.predictor_weight_decay(step) if self.decay is Decay.PREDICTOR else schedules.weight_decay(step)


def build_optimizer(model: IJepa, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; `StepNumbers` gives its groups their learning rates.

    Its own weight decay is off, because PyTorch's is a Python number: `gated_step` does the decoupled decay.
    """
    groups = group_parameters(model, settings)
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, weight_decay=0.0, fused=True)


def scheduled_groups(optimizer: torch.optim.Optimizer) -> list[ScheduledGroup]:
    """What each group of `build_optimizer` follows, in their order."""
    return [ScheduledGroup(group["lr_scale"], group["decay"]) for group in optimizer.param_groups]


@torch.no_grad()
def gated_step(optimizer: torch.optim.Optimizer, refuse: Tensor, shrinkage: Tensor) -> None:
    """Take the optimizer's step unless `refuse` is 1; weights, moments and step counts then stay as they are.

    The fused AdamW reads `found_inf` on the device (it is how PyTorch's own gradient scaler skips steps), so the
    host need not wait to learn whether the gradients were finite.

    Args:
        refuse: scalar float32 tensor on the parameters' device, 0 or 1.
        shrinkage: [groups], learning rate times weight decay of each group.
    Source of the decay, which comes before the step: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """
    kept = 1 - shrinkage * (1 - refuse)  # [groups], a finite factor also where the gradients are not
    for group, factor in zip(optimizer.param_groups, kept.unbind(), strict=True):
        if group["decay"] is not Decay.NONE:
            torch._foreach_mul_(group["params"], factor.to(group["params"][0].dtype))
    optimizer.found_inf = refuse  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()


@contextmanager
def capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the optimizer's steps are captured as a graph, which it refuses otherwise; elsewhere it would warn."""
    _mark_capturable(optimizer, True)
    try:
        yield
    finally:
        _mark_capturable(optimizer, False)


def _mark_capturable(optimizer: torch.optim.Optimizer, can: bool) -> None:
    for group in optimizer.param_groups:
        group["capturable"] = can
