"""AdamW over the parameter groups, its schedules, and updates that the device itself can refuse."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.models.ijepa import IJepa
from jepa_lab.training.parameter_groups import Decay, group_parameters
from jepa_lab.training.schedules import OptimizerSettings, Schedules


def build_optimizer(model: IJepa, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; `set_schedule` gives its groups their learning rate and weight decay."""
    return torch.optim.AdamW(group_parameters(model, settings), betas=settings.betas, eps=settings.eps, fused=True)


def set_schedule(optimizer: torch.optim.Optimizer, schedules: Schedules, step: int) -> None:
    """Write a step's learning rate and weight decay into the groups."""
    learning_rate = schedules.learning_rate(step)
    weight_decay = {
        Decay.ENCODER: schedules.weight_decay(step),
        Decay.PREDICTOR: schedules.predictor_weight_decay(step),
        Decay.NONE: 0.0,
    }
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]
        group["weight_decay"] = weight_decay[group["decay"]]


def gated_step(optimizer: torch.optim.Optimizer, refuse: Tensor) -> None:
    """Take the optimizer's step unless `refuse` is 1; weights, moments and step counts then stay as they are.

    The fused AdamW reads `found_inf` on the device (it is how PyTorch's own gradient scaler skips steps), so the
    host need not wait to learn whether the gradients were finite.

    Args:
        refuse: scalar float32 tensor on the parameters' device, 0 or 1.
    """
    optimizer.found_inf = refuse  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()
