"""How the cost of a training step grows with the batch, the grid, and the encoder's width and depth.

    python -m benchmarks.scaling [PIPELINE] [KEY=VALUE ...] [--device cpu] [--blocks N] [--out FILE]

Each row changes one number of the pipeline and leaves the rest. The exponent is the slope of log time against log
number (least squares): 1 is proportional, below it there is a fixed cost, and the exponent of the arithmetic stands
beside it.
"""

from __future__ import annotations

import math
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.step import OurStep, num_channels
from benchmarks.timing import markdown_table, report, seconds_per_call
from jepa_lab.arithmetic import useful_flops_per_image
from jepa_lab.config.checks import check_pipeline, pipeline_geometry
from jepa_lab.config.loading import LoadedPipeline, load_pipeline
from jepa_lab.errors import JepaLabError
from jepa_lab.training.devices import Compute, resolve_compute


@dataclass(frozen=True)
class Axis:
    """One number that is varied.

    Attributes:
        factors: multiples of the pipeline's own value.
        overrides: of the pipeline, for a value.
    """

    name: str
    start: int
    template: tuple[str, ...]
    factors: Sequence[float]

    def overrides(self, value: int) -> list[str]:
        """What makes the pipeline have this value."""
        return [text.format(value) for text in self.template]


def axes(loaded: LoadedPipeline) -> list[Axis]:
    """Batch, grid, width and depth around the pipeline's own."""
    pipeline, size = loaded.pipeline, pipeline_geometry(loaded.pipeline).encoder
    free = "{{name: custom, embed_dim: %s, depth: %s, num_heads: %s, mlp_ratio: %s}}"
    width = "encoder.size=" + free % ("{}", size.depth, size.num_heads, size.mlp_ratio)
    depth = "encoder.size=" + free % (size.embed_dim, "{}", size.num_heads, size.mlp_ratio)
    return [
        Axis("batch", pipeline.training.batch_size, ("training.batch_size={}",), (0.25, 0.5, 1)),
        Axis("image side", pipeline.data.image_size, ("data.image_size={}",), (0.75, 1, 1.5)),
        Axis("encoder width", size.embed_dim, (width,), (0.5, 1, 2)),
        Axis("encoder depth", size.depth, (depth,), (0.5, 1, 2)),
    ]


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost against log value, by least squares."""
    x, y = [math.log(value) for value in values], [math.log(cost) for cost in costs]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def measure_axis(
    file: Path, overrides: Sequence[str], axis: Axis, compute: Compute, blocks: int
) -> tuple[list[int], list[float], list[float]]:
    """Values, seconds of a step and its useful operations, the values taking turns."""
    values, steps, flops = [], [], []
    for factor in axis.factors:
        value = round(axis.start * factor)
        loaded = load_pipeline(file, [*overrides, *axis.overrides(value)])
        check_pipeline(loaded)
        pipeline = loaded.pipeline
        values.append(value)
        steps.append(OurStep(pipeline, compute))
        per_image = useful_flops_per_image(pipeline, num_channels(pipeline))
        flops.append(per_image * pipeline.training.batch_size)
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        for _ in range(2):
            step.take()
    for _ in range(blocks):
        for step, measured in zip(steps, times, strict=True):
            measured.extend(seconds_per_call(step.take, compute, 1))
    return values, [statistics.median(found) for found in times], flops


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("pipelines/cifar10.yaml"))
@click.argument("overrides", nargs=-1)
@click.option("--device", default=None, help="As training.device: auto, cpu, cuda or mps.")
@click.option("--blocks", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this file.")
def main(file: Path, overrides: tuple[str, ...], device: str | None, blocks: int, out: Path | None) -> None:
    """Measure how the step's cost grows."""
    changes = [*overrides, *([] if device is None else [f"training.device={device}"])]
    rows = []
    try:
        loaded = load_pipeline(file, changes)
        check_pipeline(loaded)
        compute = resolve_compute(loaded.pipeline.training)
        for axis in axes(loaded):
            values, seconds, flops = measure_axis(file, changes, axis, compute, blocks)
            times = ", ".join(f"{value}: {1e3 * second:.1f}" for value, second in zip(values, seconds, strict=True))
            rows.append([axis.name, times, f"{exponent(values, seconds):.2f}", f"{exponent(values, flops):.2f}"])
    except JepaLabError as error:
        raise click.ClickException(str(error)) from error
    body = markdown_table(["what grows", "ms per step", "exponent", "exponent of the arithmetic"], rows)
    command = f"python -m benchmarks.scaling {shlex.join(sys.argv[1:])}"
    click.echo(report(f"Scaling of the training step of {loaded.pipeline.name}", body, compute, command, out))


if __name__ == "__main__":
    main()
