"""Time of the whole training step in each way to run it, beside a baseline written with PyTorch's usual parts.

    python -m benchmarks.step [PIPELINE] [KEY=VALUE ...] [--device cpu] [--blocks N] [--profile DIR] [--out FILE]

The step is the run's own: batch, augmentation, masks, forward, backward, finite check, AdamW, EMA, on images that
live on the device. Random images stand in for the data set, which the speed does not depend on. All variants take
turns, block by block, so that what else the machine does hits them alike. The rate of matrix products is measured in
the same process, in the precision of the run. Where a device packs tokens without padding, the step is also timed with
padded ones. The baseline (`benchmarks/baseline.py`) truncates contexts and targets
to the shortest of a batch, as the released code does, so it computes less per image than `context_batching: pad`.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baseline import Baseline, BaselineSettings
from benchmarks.timing import BLOCK, DTYPES, markdown_table, matrix_rate, report, seconds_per_call
from jepa_lab.arithmetic import Layout, count_arithmetic, layout_of, useful_flops_per_image
from jepa_lab.build import build_dataset, build_model, build_whole_step
from jepa_lab.config.checks import check_pipeline, pipeline_geometry
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.augmentations.base import AUGMENTATIONS
from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.resident import ResidentBatches
from jepa_lab.errors import JepaLabError
from jepa_lab.maskers.multi_block import MultiBlock
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.ladder import Ladder
from jepa_lab.models.packing import pad
from jepa_lab.randomness import build_generator
from jepa_lab.training.compiling import missing_for_compiling
from jepa_lab.training.devices import Compute, resolve_compute
from jepa_lab.training.mask_source import DrawnAhead, DrawnNow, MaskSource

_BATCHES = 8
WAYS = {
    "uncaptured": {"compile": False, "capture": False},
    "captured": {"compile": False, "capture": True},
    "compiled": {"compile": True, "capture": False},
    "captured, compiled": {"compile": True, "capture": True},
}


class Contestant(Protocol):
    """What takes one training step a call."""

    def take(self) -> object:
        """One whole step, its batch included."""


class OurStep:
    """The run's own step on random images that live on the device.

    Args:
        padded: whether tokens are padded although the device can do without.
    """

    def __init__(self, pipeline: Pipeline, compute: Compute, *, padded: bool = False) -> None:
        self.pipeline = pipeline
        device, self.batch_size, side = compute.device, pipeline.training.batch_size, pipeline.data.image_size
        channels = num_channels(pipeline)
        shape = (self.batch_size * _BATCHES, channels, side, side)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        order = ResidentBatches(images, self.batch_size, build_generator(pipeline.seed, "order"), device)
        model = build_model(pipeline, channels).to(device)
        mean, std = torch.full((channels,), 0.5), torch.full((channels,), 0.25)
        self.whole_step = build_whole_step(pipeline, model, order, mean, std, compute)
        self.number = 0
        if padded:
            self.whole_step.batches.masks = pad_all(self.whole_step.batches.masks)
        self.layout = layout(pipeline, model, compute, padded)

    def take(self) -> None:
        """One step."""
        self.number += 1
        self.whole_step(self.whole_step.batches.next_images(), self.number)

    def flops(self) -> float:
        """Operations of a step on average, padding included, however it is run."""
        return self.batch_size * count_arithmetic(self.pipeline, self.whole_step.step.model, self.layout).computed


def num_channels(pipeline: Pipeline) -> int:
    """C of the pipeline's data set."""
    return build_dataset(pipeline.data, pipeline.data.image_size).num_channels


def layout(pipeline: Pipeline, model: IJepa, compute: Compute, padded: bool) -> Layout:
    """How the tokens of a step lie, to count what it computes."""
    eager_cpu = compute.device.type == "cpu" and not compute.compile
    if padded or not (eager_cpu or compute.device.type == "cuda"):
        return Layout(lambda masks: pad, not eager_cpu, eager_cpu, "padded")
    training = pipeline.training.model_copy(update={"device": compute.device.type, "compile": "off"})
    return layout_of(pipeline.model_copy(update={"training": training}), model, total_steps=0)


def pad_all(source: MaskSource) -> MaskSource:
    """The same masks, with tokens for padding too, and with attention to padded sequences."""
    if isinstance(source, DrawnAhead):
        return replace(source, ladder=Ladder(source.ladder.rungs[-1:]), packers=[pad])
    assert isinstance(source, DrawnNow), "there is no other one"
    return replace(source, packer=pad)


def pads_all(source: MaskSource) -> bool:
    """Whether tokens are padded anyway."""
    return isinstance(source, DrawnNow) and source.packer is pad


class _Operators(TorchDispatchMode):
    """Counts the operators that reach the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def count_launches(action: Callable[[], object], compute: Compute) -> int:
    """Kernels that a call starts on a GPU, memory copies included; operators it dispatches elsewhere."""
    if compute.device.type != "cuda":
        with _Operators() as operators:
            action()
        return operators.count
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        action()
        compute.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())


def count_flops(action: Callable[[], object]) -> int:
    """Operations of the matrix products and attentions of a call, padding included."""
    # PyTorch does not count the fused attention of a CPU: count the products that it stands for.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        action()
    return counter.get_total_flops()


@dataclass
class Row:
    """What was measured of one way to take the step.

    Attributes:
        start_seconds: from nothing to the end of the first step: building, compiling, capturing. What was compiled
            before, by another way to take the step or in an earlier process, is found again.
        times: seconds of one step, a number for each block.
        flops: computed by one step, padding included.
        launches: kernels on a GPU, operators elsewhere. peak_bytes: on a GPU.
    """

    name: str
    contestant: Contestant
    start_seconds: float
    flops: float
    launches: int | None
    peak_bytes: int | None
    times: list[float]

    @property
    def seconds(self) -> float:
        """Median of a step."""
        return statistics.median(self.times)


def start(name: str, build: Callable[[], Contestant], compute: Compute, warmup: int, opaque: bool) -> Row:
    """Build a contestant, warm it up, and count what one of its steps does.

    Args:
        opaque: its operators cannot be seen from Python, because it is compiled or captured.
    """
    on_gpu = compute.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if on_gpu else 0
    started = time.perf_counter()
    contestant = build()
    contestant.take()
    compute.synchronize()
    start_seconds = time.perf_counter() - started
    for _ in range(warmup):
        contestant.take()
    peak = torch.cuda.max_memory_allocated() - held if on_gpu else None
    flops = contestant.flops() if isinstance(contestant, OurStep) else count_flops(contestant.take)
    launches = count_launches(contestant.take, compute) if on_gpu or not opaque else None
    return Row(name, contestant, start_seconds, flops, launches, peak, [])


def baseline_settings(pipeline: Pipeline, fused: bool, workers: int) -> BaselineSettings:
    """What the baseline takes over from a pipeline.

    Raises:
        click.UsageError: it has masks or an augmentation that the baseline does not know.
    """
    if not isinstance(pipeline.masker, MultiBlock.Params):
        raise click.UsageError("the baseline draws multi_block masks; use such a pipeline, or give --baseline none")
    crops = pipeline.augmentation if isinstance(pipeline.augmentation, Minimal.Params) else None
    if crops is None and AUGMENTATIONS.entry_of(pipeline.augmentation).name != "none":
        raise click.UsageError("the baseline knows the augmentations none and minimal; give --baseline none for others")
    geometry = pipeline_geometry(pipeline)
    return BaselineSettings(
        pipeline.data.image_size,
        pipeline.encoder.patch_size,
        geometry.encoder,
        geometry.predictor,
        pipeline.masker,
        crops,
        pipeline.training.batch_size,
        fused,
        workers,
    )


def start_all(
    pipeline: Pipeline, compute: Compute, warmup: int, compiled: bool, baselines: list[BaselineSettings]
) -> list[Row]:
    """Every way to take this pipeline's step on this device, ready to be timed."""
    rows = []
    for name, does in WAYS.items():
        way = replace(compute, **does)
        if way.compile <= compiled and way.capture <= (compute.device.type == "cuda"):
            opaque = way.compile or way.capture
            first = start(name, lambda: OurStep(pipeline, way), way, warmup, opaque)  # noqa: B023
            rows.append(first)
            first.name = f"{name}, padded"
            if not pads_all(first.contestant.whole_step.batches.masks):  # type: ignore[attr-defined]
                first.name = f"{name}, packed"
                again = partial(OurStep, pipeline, way, padded=True)
                rows.append(start(f"{name}, padded", again, way, warmup, opaque))
    dtype = None if compute.precision == "fp32" else DTYPES[compute.precision]
    for settings in baselines:
        name = f"baseline, {'fused' if settings.fused else 'materialised'} attention"
        rows.append(start(name, lambda: Baseline(settings, compute.device, dtype), compute, warmup, opaque=False))  # noqa: B023
    return rows


def measure(rows: list[Row], compute: Compute, blocks: int, block: int = BLOCK) -> None:
    """Time all rows in turns."""
    for _ in range(blocks):
        for row in rows:
            row.times += seconds_per_call(row.contestant.take, compute, 1, block)


def as_markdown(rows: list[Row], batch_size: int, useful_flops: float, rate: float, compute: Compute) -> str:
    """The table.

    Args:
        useful_flops: of one step, every sequence at its own length.
        rate: FLOP/s of matrix products.
    """
    launches = "kernels" if compute.device.type == "cuda" else "operators"
    header = ["step", "ms (fastest to slowest)", "images/s", "x baseline", "share of matrix rate"]
    header += ["computed / useful FLOPs", f"{launches} per step", "peak MiB", "first step, s"]
    baseline = next((row.seconds for row in rows if row.name.startswith("baseline")), None)
    return markdown_table(
        header,
        [
            [
                row.name,
                f"{1e3 * row.seconds:.2f} ({1e3 * min(row.times):.2f} to {1e3 * max(row.times):.2f})",
                f"{batch_size / row.seconds:,.0f}",
                "" if baseline is None else f"{baseline / row.seconds:.2f}",
                f"{useful_flops / row.seconds / rate:.1%}",
                f"{row.flops / useful_flops:.2f}",
                "" if row.launches is None else f"{row.launches:,}",
                "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:,.0f}",
                f"{row.start_seconds:.1f}",
            ]
            for row in rows
        ],
    )


def write_trace(row: Row, compute: Compute, folder: Path) -> None:
    """A trace of three steps, for chrome://tracing or Perfetto, and the operators by their time."""
    folder.mkdir(parents=True, exist_ok=True)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if compute.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(3):
            row.contestant.take()
        compute.synchronize()
    name = row.name.replace(", ", "_").replace(" ", "_")
    profiler.export_chrome_trace(str(folder / f"{name}.json"))
    key = "self_cuda_time_total" if compute.device.type == "cuda" else "self_cpu_time_total"
    (folder / f"{name}.txt").write_text(profiler.key_averages().table(sort_by=key, row_limit=40))


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("pipelines/cifar10.yaml"))
@click.argument("overrides", nargs=-1)
@click.option("--device", default=None, help="As training.device: auto, cpu, cuda or mps.")
@click.option("--blocks", default=8, show_default=True, type=click.IntRange(min=1), help=f"Blocks of {BLOCK} steps.")
@click.option("--warmup", default=5, show_default=True, type=click.IntRange(min=1), help="Steps that are not counted.")
@click.option("--compiled/--no-compiled", default=None, help="Time the compiled step too (default: on a GPU).")
@click.option("--baseline", type=click.Choice(["both", "fused", "materialised", "none"]), default="both")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(min=0), help="Loader processes there.")
@click.option("--profile", type=click.Path(path_type=Path), help="Write a trace of each variant to this folder.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this file.")
def main(
    file: Path,
    overrides: tuple[str, ...],
    device: str | None,
    blocks: int,
    warmup: int,
    compiled: bool | None,
    baseline: str,
    workers: int,
    profile: Path | None,
    out: Path | None,
) -> None:
    """Measure the training step of a pipeline on the device at hand."""
    try:
        loaded = load_pipeline(file, [*overrides, *([] if device is None else [f"training.device={device}"])])
        check_pipeline(loaded)
        compute = resolve_compute(loaded.pipeline.training)
    except JepaLabError as error:
        raise click.ClickException(str(error)) from error
    pipeline = loaded.pipeline
    chosen = {"both": [True, False], "fused": [True], "materialised": [False], "none": []}[baseline]
    baselines = [baseline_settings(pipeline, fused, workers) for fused in chosen]
    if compiled is None:
        compiled = compute.device.type == "cuda" and missing_for_compiling(compute.device) is None
    rows = start_all(pipeline, compute, warmup, compiled, baselines)
    measure(rows, compute, blocks)
    useful = pipeline.training.batch_size * useful_flops_per_image(pipeline, num_channels(pipeline))
    rate = matrix_rate(compute)
    body = as_markdown(rows, pipeline.training.batch_size, useful, rate, compute)
    notes = (
        f"Batch {pipeline.training.batch_size}; useful arithmetic {useful / pipeline.training.batch_size / 1e9:.3f} "
        f"GFLOP per image; matrix products {rate / 1e12:.3f} TFLOP/s in {compute.precision}."
    )
    command = f"python -m benchmarks.step {shlex.join(sys.argv[1:])}"
    click.echo(report(f"Training step of {pipeline.name}", f"{body}\n\n{notes}", compute, command, out))
    for row in rows if profile is not None else []:
        write_trace(row, compute, profile)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
