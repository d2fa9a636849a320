"""Whole training steps of small pipelines on random images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from jepa_lab.build import build_model, build_whole_step
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.resident import ResidentBatches, normalize, to_float
from jepa_lab.randomness import build_generator
from jepa_lab.training.capture import CapturedStep
from jepa_lab.training.devices import Compute
from jepa_lab.training.whole_step import WholeStep
from tests.recorded_graph import Recorder

CPU = torch.device("cpu")


def whole_step(
    pipeline: Pipeline,
    precision: str = "fp32",
    *,
    compiled: bool = False,
    capture: bool = False,
    device: torch.device = CPU,
) -> WholeStep:
    """A pipeline's whole step on random images, with the fixed shapes that a capture needs."""
    shape = (3 * pipeline.training.batch_size, 1, 16, 16)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.full((1,), 0.5), torch.full((1,), 0.25)
    model = build_model(pipeline, 1)
    compute = Compute(device, precision, compile=compiled, capture=True)

    def some(count: int) -> Iterator[Tensor]:
        yield normalize(to_float(images[:count]), mean, std)

    model.target.fit(some)
    order = ResidentBatches(images, pipeline.training.batch_size, build_generator(0, "order"), device)
    step = build_whole_step(pipeline, model.to(device), order, mean, std, compute)
    return step if capture else WholeStep(step.batches, step.step, step.sums)


def captured(
    step: WholeStep, *, required: bool = False, recorder: Recorder | None = None
) -> tuple[CapturedStep, Recorder]:
    """The same step, captured by a stand-in for CUDA graphs."""
    recorder = recorder or Recorder()
    return CapturedStep(step.batches, step.step, step.sums, recorder, required), recorder
