"""What a training step computes on a device, and how much of it is useful; counted, not computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_lab.build import build_model, build_sampler
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.maskers.statistics import sampled_batches
from jepa_lab.models.flops import computed_flops, useful_flops
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.packing import Packer, pad
from jepa_lab.training.compiling import compiles
from jepa_lab.training.devices import device_type


@dataclass(frozen=True)
class Layout:
    """How the tokens of a batch lie in the memory of a device.

    Attributes:
        fixed_shapes: whether masks keep their largest shape, whatever is drawn.
        aligned_keys: whether attention fills the vectors of a CPU up with keys.
        words: where and how, for people.
    """

    packer: Packer
    fixed_shapes: bool
    aligned_keys: bool
    words: str


def layout_of(pipeline: Pipeline, model: IJepa, total_steps: int) -> Layout:
    """How a run of the pipeline lays tokens out on its device, which need not be here."""
    settings = pipeline.training
    device = torch.device(device_type(settings.device))
    if device.type != "cpu":
        return Layout(pad, fixed_shapes=True, aligned_keys=False, words=f"on {device.type}: tokens padded")
    if compiles(settings.compile, device, total_steps):
        return Layout(pad, fixed_shapes=True, aligned_keys=False, words="on cpu, compiled: tokens padded")
    packer = model.packer_for(device)
    return Layout(packer, fixed_shapes=False, aligned_keys=True, words="on cpu: tokens not padded")


@dataclass(frozen=True)
class Arithmetic:
    """Operations of a training step for one image, gradients included, on average over a few batches.

    Attributes:
        useful: with every sequence at its own length, whether its tokens are read or not.
        computed: padding included; what is not computed because nothing reads it is not in there.
    """

    useful: float
    computed: float

    @property
    def ratio(self) -> float:
        """What is computed over what is useful; it can be below 1."""
        return self.computed / self.useful


def count_arithmetic(pipeline: Pipeline, model: IJepa, layout: Layout) -> Arithmetic:
    """Draw a few of the pipeline's batches, pack them, and count.

    Args:
        model: of the pipeline, on whatever device: it is not run.
    """
    training = pipeline.training
    sampler, generator = build_sampler(pipeline), torch.Generator().manual_seed(pipeline.seed)
    part = training.batch_size // training.accumulation_steps
    useful = computed = 0.0
    batches = sampled_batches(training.batch_size)
    for _ in range(batches):
        masks = sampler.sample(training.batch_size, generator, compiled=layout.fixed_shapes)
        for start in range(0, training.batch_size, part):
            few = masks[start : start + part]
            useful += useful_flops(model, few)
            computed += computed_flops(model, few, model.pack(few, layout.packer), aligned=layout.aligned_keys)
    images = batches * training.batch_size
    return Arithmetic(useful / images, computed / images)


def useful_flops_per_image(pipeline: Pipeline, num_channels: int) -> float:
    """Operations of a training step for one image that do not depend on the device, see `Arithmetic`."""
    with torch.device("meta"):
        model = build_model(pipeline, num_channels)
    unpadded = Layout(model.packer_for(torch.device("cpu")), False, False, "without padding")
    return count_arithmetic(pipeline, model, unpadded).useful
