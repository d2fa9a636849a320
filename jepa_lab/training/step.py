"""One pretraining step: forward, backward, finite check, AdamW, EMA of the target encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from jepa_lab.maskers.base import Masks
from jepa_lab.models.ijepa import IJepa, Prediction
from jepa_lab.models.packing import Packer
from jepa_lab.training.devices import Compute
from jepa_lab.training.finite import FiniteGate
from jepa_lab.training.optimizer import gated_step
from jepa_lab.training.step_numbers import StepNumbers
from jepa_lab.training.team import Alone, Team


@dataclass(frozen=True)
class StepStatistics:
    """What a step measured; scalar tensors on the device, so that reading them is the host's choice.

    Attributes:
        terms: what the loss is made of, by name, where it is more than the prediction loss.
    """

    loss: Tensor
    encoder_gradient_norm: Tensor
    predictor_gradient_norm: Tensor
    refused: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class TrainingStep:
    """Everything that a step changes, and how it changes it.

    Its call reads tensors alone, of the batch and of `numbers`; the host waits for none of them.

    Attributes:
        forward: the model as it is called: compiled or not, replicated by the team or not.
        numbers: of the step that comes next; whoever calls sets them before.
        parts: micro-batches that a batch is computed in; the result is that of the whole batch.
        clip_norm: largest norm of all gradients together, or None.
        team: the processes that compute a batch together; the result is that of one.
    """

    model: IJepa
    forward: Callable[..., Prediction]
    optimizer: torch.optim.AdamW
    numbers: StepNumbers
    gate: FiniteGate
    compute: Compute
    parts: int
    clip_norm: float | None
    team: Team = field(default_factory=Alone)

    def __call__(self, images: Tensor, masks: Masks, packer: Packer, drop_path: Tensor | None = None) -> StepStatistics:
        """Train on a batch, with what `numbers` says.

        Args:
            images: this process's rows of the batch, [B / processes, C, H, W] float, channel-normalised, augmented.
            masks: of all B images.
            packer: lays out the tokens of the images that are computed together.
            drop_path: [B, depth, 2] of all B images, see `IJepa.forward`.
        """
        num_valid = self.model.count_targets(masks)
        rows = self.team.rows(len(masks))
        masks, drop_path = masks[rows], None if drop_path is None else drop_path[rows]
        measured: dict[str, Tensor] = {}
        parts = part_slices(len(masks), self.parts)
        for part in parts:
            with nullcontext() if part == parts[-1] else self.team.without_sum():
                factors = None if drop_path is None else drop_path[part]
                packings = self.model.pack(masks[part], packer)
                with self.compute.autocast():
                    prediction = self.forward(images[part], masks[part], num_valid, factors, packings)
                (prediction.loss * self.gate.loss_scale).backward()
            for name, value in {"loss": prediction.loss, **prediction.terms}.items():
                measured[name] = measured[name] + value.detach() if name in measured else value.detach()

        # Losses divide by the valid patches of the whole batch: their sum, and that of the gradients, is the batch's.
        measured = {name: self.team.sum(value) for name, value in measured.items()}
        loss = measured.pop("loss")
        encoder_norm, predictor_norm = self._gradient_norms()
        refused = self.gate.judge(loss, encoder_norm + predictor_norm, self.numbers.step)
        gated_step(self.optimizer, refused, self.numbers.shrinkage)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.update_target_encoder(self.numbers.ema_weight * (1 - refused))
        return StepStatistics(loss, encoder_norm, predictor_norm, refused, measured)

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Steps within call the model as it is written, operator by operator."""
        forward, self.forward = self.forward, self.model
        try:
            yield
        finally:
            self.forward = forward

    def _gradient_norms(self) -> tuple[Tensor, Tensor]:
        """Undo the loss scale, clip, and return the norms before clipping of encoder and predictor."""
        encoder = _gradients(self.model.encoder_parameters())
        predictor = _gradients(self.model.predictor_parameters())
        if self.gate.scaling:
            torch._foreach_mul_(encoder + predictor, 1 / self.gate.loss_scale)
        of_tensors = torch.stack(torch._foreach_norm(encoder + predictor))
        encoder_norm = torch.linalg.vector_norm(of_tensors[: len(encoder)])
        predictor_norm = torch.linalg.vector_norm(of_tensors[len(encoder) :])
        if self.clip_norm is not None:
            total = torch.hypot(encoder_norm, predictor_norm)
            torch._foreach_mul_(encoder + predictor, (self.clip_norm / (total + 1e-6)).clamp(max=1.0))
        return encoder_norm, predictor_norm


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def part_slices(count: int, parts: int) -> list[slice]:
    """Which images of a batch are computed together."""
    size = count // parts
    return [slice(start, start + size) for start in range(0, count, size)]
