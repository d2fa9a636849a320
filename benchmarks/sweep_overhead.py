"""What a sweep costs beside its trials: the slope between 24 and 48 trials of about 5 s, against the trials alone.

    python -m benchmarks.sweep_overhead [--trials 24] [--epochs N] [--slots N] [--out benchmarks/results/NAME.md]

Two sweeps are timed, one with twice as many trials: the difference is the time of the trials that were added, without
imports, the creation of the MLflow store and the report, which are told apart as start-up. The same trials are also
run by as many plain processes with the same threads, without study, queue and tracker; the overhead is by how much
more a trial takes in the sweep. Wall time says what a user waits for and needs an otherwise idle machine; CPU time of
all processes, parent and mirror included, hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import torch

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.sweeps.base import with_seed
from jepa_lab.sweeps.sharing.slots import num_cores
from jepa_lab.tracking.uris import sqlite_uri

BASE = Path(__file__).parents[1] / "pipelines" / "digits.yaml"
ARMS = ("smooth_l1", "l2")
_SHORT = [
    "training.device=cpu",
    "data.max_images=512",
    "training.batch_size=64",
    "probe.method.c_grid=[0.1]",
    "probe.every_epochs=2",
]


@dataclass(frozen=True)
class SweepTimes:
    """What was measured, in seconds of one clock.

    Attributes:
        parallel: how many trials the clock runs for at once: slots for wall time, 1 for CPU time.
        short, long: of the sweep of `trials`, and of that of twice as many.
        alone: what a trial takes of a plain process, with all of them at work.
    """

    trials: int
    parallel: int
    short: float
    long: float
    alone: float

    @property
    def in_sweep(self) -> float:
        """What a trial takes of a slot, by the trials that were added."""
        return (self.long - self.short) / self.trials * self.parallel

    @property
    def overhead(self) -> float:
        return self.in_sweep / self.alone - 1

    @property
    def start_up(self) -> float:
        """What a sweep of no trials would take."""
        return 2 * self.short - self.long


@dataclass(frozen=True)
class Clock:
    """Wall and CPU seconds."""

    wall: float
    cpu: float


def time_sweep(folder: Path, trials: int, slots: int, epochs: int) -> Clock:
    """Of a whole `jepa-lab sweep`, mirrored to a new MLflow store."""
    file = folder / f"trials_{trials}.yaml"
    arms = "\n".join(f"  {arm}: {{loss: {arm}}}" for arm in ARMS)
    seeds = list(range(trials // len(ARMS)))
    file.write_text(f"base: {BASE}\nbaseline: {ARMS[0]}\narms:\n{arms}\nseeds: {seeds}\n")
    overrides = [f"training.epochs={epochs}", *_SHORT]
    overrides.append(f"tracking={{name: mlflow, uri: '{sqlite_uri(folder / f'mlflow_{trials}.db')}'}}")
    command = [sys.executable, "-m", "jepa_lab", "sweep", str(file), *overrides]
    command += ["--sweeps", str(folder / "sweeps"), "--slots", str(slots)]
    started, cpu = time.perf_counter(), _cpu_of_children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Clock(time.perf_counter() - started, _cpu_of_children() - cpu)


def time_alone(folder: Path, trials: int, slots: int, epochs: int) -> Clock:
    """Of a trial in a process that trains one after the other, after one that is not counted."""
    os.environ["OMP_NUM_THREADS"] = str(_threads(slots))
    with ProcessPoolExecutor(slots, get_context("spawn"), torch.set_num_threads, (_threads(slots),)) as pool:

        def perform(numbers: Iterable[int]) -> float:
            return sum(each.result() for each in [pool.submit(_run_alone, folder, n, epochs) for n in numbers])

        perform(range(trials, trials + slots))
        started = time.perf_counter()
        cpu = perform(range(trials))
        return Clock((time.perf_counter() - started) / trials * slots, cpu / trials)


def _run_alone(folder: Path, number: int, epochs: int) -> float:
    """Train and probe a trial; the CPU seconds that it took."""
    arm, seed = ARMS[number % len(ARMS)], number // len(ARMS)
    loaded = load_pipeline(BASE, [f"training.epochs={epochs}", *_SHORT, f"loss={arm}", "tracking=none"])
    started = time.process_time()
    start_run(with_seed(loaded, seed), folder / "alone", [])
    return time.process_time() - started


def _cpu_of_children() -> float:
    """CPU seconds of all processes that were started and have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _threads(slots: int) -> int:
    """As the executor divides them."""
    return max(1, num_cores() // slots)


def table(wall: SweepTimes, cpu: SweepTimes, slots: int) -> str:
    """The result as Markdown, with its conditions."""
    conditions = (
        f"{platform.machine()}, {num_cores()} cores; torch {torch.__version__}, Python {platform.python_version()}"
    )
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    rows = {
        f"sweep of {wall.trials} trials": (f"{each.short:.1f} s" for each in (wall, cpu)),
        f"sweep of {2 * wall.trials} trials": (f"{each.long:.1f} s" for each in (wall, cpu)),
        "start-up, end and report": (f"{each.start_up:.1f} s" for each in (wall, cpu)),
        "a trial more, of a slot of the sweep": (f"{each.in_sweep:.2f} s" for each in (wall, cpu)),
        "a trial, of a plain process": (f"{each.alone:.2f} s" for each in (wall, cpu)),
        "overhead": (f"{each.overhead:.1%}" for each in (wall, cpu)),
    }
    heading = f"{conditions}; {slots} slots of {_threads(slots)} threads; load of the machine at the end: {load}"
    lines = [heading, "", "| what | wall time | CPU time of all processes |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


@click.command()
@click.option("--trials", default=24, show_default=True, type=click.IntRange(min=2), help="Of the shorter sweep.")
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(min=1), help="Length of a trial.")
@click.option("--slots", default=num_cores, show_default="one a core", type=click.IntRange(min=1))
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this file.")
def main(trials: int, epochs: int, slots: int, out: Path | None) -> None:
    """Measure what a sweep costs beside its trials."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short = time_sweep(folder, trials, slots, epochs)
        alone = time_alone(folder, trials, slots, epochs)  # between the sweeps: others may share the machine
        long = time_sweep(folder, 2 * trials, slots, epochs)
    wall = SweepTimes(trials, slots, short.wall, long.wall, alone.wall)
    text = table(wall, SweepTimes(trials, 1, short.cpu, long.cpu, alone.cpu), slots)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
