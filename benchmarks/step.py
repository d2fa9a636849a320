"""Images a second of the whole training step, and its share of the device's measured matrix-product rate.

    python -m benchmarks.step [PIPELINE] [KEY=VALUE ...] [--steps BLOCKS] [--out benchmarks/results/NAME.md]

The step is the run's own: batch, augmentation, masks, forward, backward, finite check, AdamW, EMA, on images that
live on the device. Random images stand in for the data set, which the speed does not depend on. The rate of matrix
products is measured in the same process, in the precision of the run.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from jepa_lab.build import build_augmentation, build_dataset, build_model, build_sampler, build_step
from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.resident import ResidentBatches, normalize, to_float
from jepa_lab.errors import JepaLabError
from jepa_lab.inspection import flops_per_image, sample_statistics
from jepa_lab.randomness import build_generator
from jepa_lab.training.devices import Compute, resolve_compute

_MATRIX_SIDE = {"cuda": 8192, "mps": 4096, "cpu": 1024}
_BATCHES = 8
_BLOCK = 5
"""Steps timed together: the device then works on one while the host prepares the next, as in training."""


@dataclass(frozen=True)
class StepSpeed:
    """What was measured.

    Attributes:
        seconds: median of one step. flops_per_image: arithmetic of the patches that are not padding.
        matrix_flops_per_second: of a large matrix product on the same device in the same precision.
    """

    seconds: float
    slowest_seconds: float
    batch_size: int
    flops_per_image: float
    matrix_flops_per_second: float

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.seconds

    @property
    def share_of_matrix_rate(self) -> float:
        return self.images_per_second * self.flops_per_image / self.matrix_flops_per_second


def median_seconds(action: Callable[[], object], compute: Compute, repeats: int) -> tuple[float, float]:
    """Median and longest time of an action, measured in blocks between which alone the host waits for the device."""
    times = []
    for _ in range(repeats):
        compute.synchronize()
        started = time.perf_counter()
        for _ in range(_BLOCK):
            action()
        compute.synchronize()
        times.append((time.perf_counter() - started) / _BLOCK)
    return statistics.median(times), max(times)


def matrix_rate(compute: Compute) -> float:
    """FLOP/s of a large square matrix product of random numbers in the run's precision."""
    side = _MATRIX_SIDE[compute.device.type]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[compute.precision]
    left, right = (torch.randn(side, side, device=compute.device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    seconds, _ = median_seconds(lambda: left @ right, compute, repeats=10)
    return 2 * side**3 / seconds


def measure_step(pipeline: Pipeline, compute: Compute, steps: int, warmup: int) -> StepSpeed:
    """Time `steps` blocks of training steps after `warmup` steps that are not counted (compilation, allocations)."""
    channels = build_dataset(pipeline.data, pipeline.data.image_size).num_channels
    batch_size, side, device = pipeline.training.batch_size, pipeline.data.image_size, compute.device
    shape = (batch_size * _BATCHES, channels, side, side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    batches = ResidentBatches(images, batch_size, build_generator(pipeline.seed, "order"), device)
    model = build_model(pipeline, channels).to(device)
    step = build_step(pipeline, model, compute, batches.steps_per_epoch)
    sampler, augmentation = build_sampler(pipeline), build_augmentation(pipeline)
    masks_generator = build_generator(pipeline.seed, "masks", device)
    augmentation_generator = build_generator(pipeline.seed, "augmentation", device)
    mean, std = torch.full((channels,), 0.5, device=device), torch.full((channels,), 0.25, device=device)
    number = 0

    def take() -> None:
        nonlocal number
        number += 1
        batch = batches.next()
        masks = sampler.sample(batch_size, masks_generator, compiled=compute.compile)
        augmented = augmentation(to_float(batch.images), batch.sizes, augmentation_generator)
        step(normalize(augmented, mean, std), masks, number)

    for _ in range(warmup):
        take()
    seconds, slowest = median_seconds(take, compute, steps)
    return StepSpeed(
        seconds,
        slowest,
        batch_size,
        flops_per_image(pipeline, channels, sample_statistics(pipeline)),
        matrix_rate(compute),
    )


def table(speed: StepSpeed, pipeline: Pipeline, compute: Compute) -> str:
    """The result as Markdown, with its conditions."""
    rows = {
        "pipeline": pipeline.name,
        "device": compute.describe(),
        "precision, compiled": f"{compute.precision}, {compute.compile}",
        "batch": f"{speed.batch_size}",
        "torch, Python": f"{torch.__version__}, {platform.python_version()}",
        "step, median (slowest)": f"{1e3 * speed.seconds:.1f} ms ({1e3 * speed.slowest_seconds:.1f} ms)",
        "images/s": f"{speed.images_per_second:,.0f}",
        "arithmetic of an image": f"{speed.flops_per_image / 1e9:.3f} GFLOP",
        "matrix products": f"{speed.matrix_flops_per_second / 1e12:.3f} TFLOP/s",
        "share of that rate": f"{speed.share_of_matrix_rate:.1%}",
    }
    return "\n".join(
        ["| what | measured |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("pipelines/cifar10.yaml"))
@click.argument("overrides", nargs=-1)
@click.option("--steps", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--warmup", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this file.")
def main(file: Path, overrides: tuple[str, ...], steps: int, warmup: int, out: Path | None) -> None:
    """Measure the training step of a pipeline on the device at hand."""
    try:
        loaded = load_pipeline(file, overrides)
        check_pipeline(loaded)
        compute = resolve_compute(loaded.pipeline.training)
    except JepaLabError as error:
        raise click.ClickException(str(error)) from error
    text = table(measure_step(loaded.pipeline, compute, steps, warmup), loaded.pipeline, compute)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
