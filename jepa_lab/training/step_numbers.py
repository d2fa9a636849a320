"""The numbers of a step that follow from its place in the run, as tensors on the device."""

from __future__ import annotations

import torch

from jepa_lab.training.optimizer import scheduled_groups
from jepa_lab.training.schedules import Schedules


class StepNumbers:
    """Number, learning rates, weight decays and EMA weight of the step that comes next.

    What computes a step reads these tensors and never a Python number that changes: so a step that was captured as a
    graph, whose Python code does not run again, follows the schedules too.

    Args:
        optimizer: of `build_optimizer`; its groups take their learning rates from here.

    Attributes:
        step: scalar int64, from 1.
        shrinkage: [groups], learning rate times weight decay of each group of the optimizer.
        ema_weight: scalar, share of the context encoder in the EMA update: 1 - momentum.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedules: Schedules, device: torch.device) -> None:
        self.schedules = schedules
        self._groups = scheduled_groups(optimizer)
        count = len(self._groups)
        # The optimizer's kernels take single precision; on a CPU they take what Python would have computed with.
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        self._values = torch.zeros(2 * count + 1, dtype=dtype, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.shrinkage = self._values[count : 2 * count]
        self.ema_weight = self._values[-1]
        for group, learning_rate in zip(optimizer.param_groups, self._values[:count].unbind(), strict=True):
            group["lr"] = learning_rate

    def set(self, step: int) -> None:
        """Make these the numbers of a step; the host does not wait for the device."""
        learning_rate, schedules = self.schedules.learning_rate(step), self.schedules
        rates = [learning_rate * group.learning_rate_scale for group in self._groups]
        decays = [group.weight_decay(schedules, step) for group in self._groups]
        shrinkage = [rate * decay for rate, decay in zip(rates, decays, strict=True)]
        values = [*rates, *shrinkage, 1 - schedules.ema_momentum(step)]
        # Not pinned: CUDA takes a copy before the call returns, so that the memory may be used again; MPS does not.
        cuda = self._values.device.type == "cuda"
        self._values.copy_(torch.tensor(values, dtype=self._values.dtype), non_blocking=cuda)
        self.step.fill_(step)
