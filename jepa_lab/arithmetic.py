"""What a training step computes on a device, and how much of it is useful; counted, not computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from jepa_lab.build import build_model, build_sampler, head_dims
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.statistics import sampled_batches
from jepa_lab.models.flops import computed_flops, useful_flops
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.ladder import build_ladder, needed_rows
from jepa_lab.models.packing import FixedSizes, Packer, pad
from jepa_lab.models.sequences import kernel_fits
from jepa_lab.training.compiling import compiles
from jepa_lab.training.devices import device_type
from jepa_lab.training.step import part_slices


@dataclass(frozen=True)
class Layout:
    """How the tokens of a batch lie in the memory of a device.

    Attributes:
        packer: lays out the tokens of masks that are computed together.
        fixed_shapes: whether masks keep their largest shape, whatever is drawn.
        aligned_keys: whether attention fills the vectors of a CPU up with keys.
        words: where and how, for people.
    """

    packer: Callable[[Masks], Packer]
    fixed_shapes: bool
    aligned_keys: bool
    words: str


def layout_of(pipeline: Pipeline, model: IJepa, total_steps: int) -> Layout:
    """How a run of the pipeline lays tokens out on its device, which need not be here."""
    settings = pipeline.training
    device = torch.device(device_type(settings.device))
    if device.type == "cuda":
        return _on_cuda(pipeline, model)
    if device.type == "cpu" and not compiles(settings.compile, device, total_steps):
        packer = model.packer_for(device)
        return Layout(lambda masks: packer, fixed_shapes=False, aligned_keys=True, words="on cpu: tokens not padded")
    where = f"on {device.type}, compiled" if device.type == "cpu" else f"on {device.type}"
    return Layout(lambda masks: pad, fixed_shapes=True, aligned_keys=False, words=f"{where}: tokens padded")


def _on_cuda(pipeline: Pipeline, model: IJepa) -> Layout:
    """Buffers of fixed sizes, and the kernel for variable lengths if this PyTorch has one; the GPU need not be here."""
    training, sampler, levels = pipeline.training, build_sampler(pipeline), model.hierarchy.masks
    parts = part_slices(training.batch_size, training.accumulation_steps)
    ladder = build_ladder(lambda own: sampler.sample(training.batch_size, own, fixed_shapes=True), levels, parts)
    has_kernel = training.precision != "fp32" and kernel_fits(head_dims(pipeline))

    def packer(masks: Masks) -> Packer:
        rung = ladder.rung(needed_rows(masks, levels, [slice(None)]).tolist())
        return FixedSizes(ladder.rungs[rung], has_kernel)

    attention = "attention for variable lengths" if has_kernel else "padded for the attention"
    return Layout(packer, True, False, f"on cuda: buffers of {len(ladder.rungs)} fixed sizes, {attention}")


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
        masks = sampler.sample(training.batch_size, generator, fixed_shapes=layout.fixed_shapes)
        for start in range(0, training.batch_size, part):
            few = masks[start : start + part]
            useful += useful_flops(model, few)
            computed += computed_flops(model, few, model.pack(few, layout.packer(few)), aligned=layout.aligned_keys)
    images = batches * training.batch_size
    return Arithmetic(useful / images, computed / images)


def useful_flops_per_image(pipeline: Pipeline, num_channels: int) -> float:
    """Operations of a training step for one image that do not depend on the device, see `Arithmetic`."""
    with torch.device("meta"):
        model = build_model(pipeline, num_channels)
    packer = model.packer_for(torch.device("cpu"))
    unpadded = Layout(lambda masks: packer, False, False, "without padding")
    return count_arithmetic(pipeline, model, unpadded).useful
