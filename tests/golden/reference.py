"""The released implementation's numbers, and our model with its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.losses.smooth_l1 import SmoothL1Loss, SmoothL1Params
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.positions.sincos import SinCosPosition
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TargetInputs
from jepa_lab.targets.features import FeaturesParams, FeaturesTarget
from jepa_lab.training.devices import Compute
from jepa_lab.training.ema.linear import LinearEma
from jepa_lab.training.ema.start_end import StartEndParams
from jepa_lab.training.finite import FiniteGate
from jepa_lab.training.optimizer import build_optimizer
from jepa_lab.training.schedules import OptimizerSettings, Schedules
from jepa_lab.training.step import StepStatistics, TrainingStep
from jepa_lab.training.step_numbers import StepNumbers
from tests.packers import pack_exactly

FOLDER = Path(__file__).parent
RENAMED = {
    "predictor_embed": "embed",
    "predictor_blocks": "blocks",
    "predictor_norm": "norm",
    "predictor_proj": "proj",
}


@dataclass(frozen=True)
class Reference:
    """Configuration, inputs and results of six training steps of the released implementation, in float64."""

    config: dict[str, object]
    tensors: dict[str, Tensor]

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """Tensors under `prefix`, by our names, without the fixed position embeddings."""
        found = {}
        for name, tensor in self.tensors.items():
            if name.startswith(prefix + ".") and not name.endswith("pos_embed"):
                short = name.removeprefix(prefix + ".")
                head, _, tail = short.partition(".")
                found[RENAMED.get(head, head) + (f".{tail}" if tail else "")] = tensor
        return found

    def masks(self, step: int) -> Masks:
        """The masks of a step."""
        context = self.tensors[f"step{step}.context_0"].unsqueeze(1)
        target = torch.stack([self.tensors[f"step{step}.target_{block}"] for block in range(4)], dim=1)
        return Masks(Patches(context), Patches(target))

    def images(self, step: int) -> Tensor:
        """The images of a step, [B, C, H, W]."""
        return self.tensors[f"step{step}.images"]


def load_reference() -> Reference:
    """Read the golden files."""
    config = json.loads((FOLDER / "reference_small.json").read_text())
    return Reference(config, load_file(FOLDER / "reference_small.safetensors"))


def build_reference_model(reference: Reference) -> IJepa:
    """Our model, in float64, with the reference's starting weights."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        grid, size, narrow = Grid(8, 8), ModelSize(48, 2, 3), ModelSize(24, 2, 3)
        position = SinCosPosition(ComponentParams(), grid, 48, 3)
        encoder = VisionTransformer(grid, 4, 3, size, position)
        predictor = Predictor(48, narrow, SinCosPosition(ComponentParams(), grid, 24, 3))
        encoder.load_state_dict(reference.weights("init.encoder"))
        predictor.load_state_dict(reference.weights("init.predictor"))
        return IJepa(
            encoder,
            predictor,
            FeaturesTarget(FeaturesParams(), TargetInputs(48, 2, 4, 3)),
            SmoothL1Loss(SmoothL1Params()),
        )
    finally:
        torch.set_default_dtype(previous)


def build_reference_step(model: IJepa, **changes: object) -> TrainingStep:
    """The reference's optimisation of six steps: three an epoch, two epochs, one of warm-up.

    Args:
        changes: fields of `OptimizerSettings` to set otherwise, or `ema` for another schedule.
    """
    ema = changes.pop("ema", LinearEma(StartEndParams(start=0.9, end=1.0)))
    settings = OptimizerSettings(
        **{
            "learning_rate": 1e-3,
            "start_learning_rate": 2e-4,
            "final_learning_rate": 1e-6,
            "warmup_epochs": 1,
            "weight_decay": 1.0,
            "final_weight_decay": 4.0,
            "schedule_stretch": 1.25,
            **changes,
        }
    )
    compute = Compute(torch.device("cpu"), "fp32", False)
    optimizer = build_optimizer(model, settings)
    return TrainingStep(
        model=model,
        forward=model,
        optimizer=optimizer,
        numbers=StepNumbers(optimizer, Schedules(settings, ema, epochs=2, steps_per_epoch=3), compute.device),
        gate=FiniteGate.open(compute.device, "fp32"),
        compute=compute,
        parts=1,
        clip_norm=None,
    )


def take(
    step: TrainingStep, images: Tensor, masks: Masks, number: int, drop_path: Tensor | None = None
) -> StepStatistics:
    """Take the step of a number."""
    step.numbers.set(number)
    return step(images, masks, pack_exactly, drop_path)
