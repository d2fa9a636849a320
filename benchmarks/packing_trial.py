"""One trial of `benchmarks.packing`: the run's own step, again and again, in a process and a slot of its own.

It says READY when it is warm, takes from its standard input when the window begins (time.monotonic(), which all
processes of a machine share) and how long it is, and answers with a line of JSON. It stays until its standard input
ends, so that the memory of all can be seen at once.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import torch

from benchmarks.step import OurStep
from benchmarks.timing import BLOCK
from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import JepaLabError
from jepa_lab.sweeps.sharing.memory import bound_gpu_memory
from jepa_lab.training.devices import Compute, memory_errors, resolve_compute

READY = "ready"
_WARM_UPS = 5


@dataclass(frozen=True)
class Window:
    """When to measure: from `begin` (time.monotonic()) for `seconds`."""

    begin: float
    seconds: float


@dataclass(frozen=True)
class Speed:
    """What a trial did in the window.

    Attributes:
        cpu_seconds: of all its threads, per second.
        process_bytes: the most that this process held of the machine's memory, or for its tensors on a GPU.
        free_bytes: of the GPU at the end, with all trials there; None elsewhere.
    """

    images_per_second: float
    cpu_seconds: float
    process_bytes: int
    free_bytes: int | None


def steps_within(times: list[float], begin: float, end: float) -> float:
    """Steps that were taken between two moments.

    Args:
        times: of the beginning and of the end of each block of steps; they must reach from `begin` to `end`.
    """
    done = 0.0
    for before, after in itertools.pairwise(times):
        done += BLOCK * max(0.0, min(after, end) - max(before, begin)) / (after - before)
    return done


def take_steps(step: OurStep, compute: Compute, window: Window) -> Speed:
    """Take steps until the window is over; they begin at once, so that all are at work when it begins."""
    times, end = [time.monotonic()], window.begin + window.seconds
    cpu_before, began = time.process_time(), times[0]
    while times[-1] < end:
        for _ in range(BLOCK):
            step.take()
        compute.synchronize()
        times.append(time.monotonic())
    cpu = (time.process_time() - cpu_before) / (times[-1] - began)
    steps = steps_within(times, window.begin, end)
    free = torch.cuda.mem_get_info()[0] if compute.device.type == "cuda" else None
    return Speed(steps * step.batch_size / window.seconds, cpu, compute.peak_memory_bytes(), free)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--captured/--uncaptured", required=True)
@click.option("--threads", type=int, required=True)
@click.option("--memory", type=int, help="Bytes of the GPU for tensors.")
def main(file: Path, overrides: tuple[str, ...], captured: bool, threads: int, memory: int | None) -> None:
    """Warm up, wait for the window, measure."""
    torch.set_num_threads(threads)
    try:
        pipeline = load_pipeline(file, overrides).pipeline
        compute = replace(resolve_compute(pipeline.training), capture=captured)
        if compute.device.type == "cuda":
            bound_gpu_memory(memory)
        with memory_errors(pipeline.training):
            step = OurStep(pipeline, compute)
            for _ in range(_WARM_UPS):
                step.take()
            compute.synchronize()
            print(READY, flush=True)
            speed = take_steps(step, compute, Window(**json.loads(sys.stdin.readline())))
    except JepaLabError as error:
        raise click.ClickException(str(error)) from error
    print(json.dumps(asdict(speed)), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
