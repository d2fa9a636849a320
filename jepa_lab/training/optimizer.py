"""AdamW with the reference's parameter groups, and updates that the device itself can refuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jepa_lab.positions.base import PositionEmbedding
from jepa_lab.training.schedules import OptimizerSettings


def decayed_parameters(model: nn.Module, settings: OptimizerSettings) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters into those with weight decay and those without.

    No decay on anything named bias or with one dimension; mask token and learned positions by choice.
    Source: the released code's groups.
    """
    learned = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, PositionEmbedding)
        for parameter in module.parameters()
    }
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = not name.endswith("bias") and parameter.ndim > 1
        if name.endswith("mask_token"):
            decays = settings.decay_mask_token
        if id(parameter) in learned:
            decays = settings.decay_positions
        (decayed if decays else plain).append(parameter)
    return decayed, plain


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: group 0 with weight decay, group 1 without."""
    decayed, plain = decayed_parameters(model, settings)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_schedule(optimizer: torch.optim.Optimizer, learning_rate: float, weight_decay: float) -> None:
    """Write this step's learning rate and weight decay into the groups."""
    decayed, plain = optimizer.param_groups
    decayed["lr"] = plain["lr"] = learning_rate
    decayed["weight_decay"] = weight_decay


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
