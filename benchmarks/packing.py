"""Images per second of several trials that share a GPU as those of a sweep do, against one trial alone.

    python -m benchmarks.packing [PIPELINE] [KEY=VALUE ...] [--trials 1,2,4,8] [--device cuda] [--seconds 20]

Each trial is a process in a slot, with the CPU threads, the GPU, the part of its memory and the MPS daemon that
`jepa-lab sweep --slots-per-gpu N` gives it, and takes the run's own whole step (`benchmarks.step`). When all are warm,
all are measured over the same seconds. On a GPU the step is measured captured and uncaptured, and the largest number of
trials also without MPS. On a CPU it is a rehearsal. To measure a compiled step: training.compile=on.
"""

from __future__ import annotations

import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from benchmarks.packing_trial import READY, Speed, Window
from benchmarks.timing import markdown_table, report
from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import JepaLabError
from jepa_lab.interruption import leaving_on_signals
from jepa_lab.sweeps.sharing.memory import free_memory
from jepa_lab.sweeps.sharing.slots import Slots, num_cores, refuse_too_many, visible_gpus
from jepa_lab.training.devices import resolve_compute

_START_SECONDS = 1.0  # between the signal and the window: all are at work when it begins
_FULL = 0.9  # of a GPU's time, or of the cores: then there is no more to be had from it


@dataclass(frozen=True)
class Variant:
    """A way to run trials side by side."""

    trials: int
    captured: bool
    mps: bool = True


@dataclass(frozen=True)
class Packed:
    """What was measured of a variant.

    Attributes:
        speeds: a trial each.
        by_mps: whether they were clients of an MPS daemon.
        busy: share of the time in which the GPU ran at least one kernel, as nvidia-smi says; None where it does not.
    """

    variant: Variant
    speeds: Sequence[Speed]
    by_mps: bool
    busy: float | None

    @property
    def images_per_second(self) -> float:
        """Of all together."""
        return sum(speed.images_per_second for speed in self.speeds)

    @property
    def cores(self) -> float:
        """CPU cores that all together kept busy."""
        return sum(speed.cpu_seconds for speed in self.speeds)


def variants(trials: Sequence[int], on_gpu: bool) -> list[Variant]:
    """What is measured, the comparisons with one trial first."""
    ways = [Variant(number, captured) for number in trials for captured in ((False, True) if on_gpu else (False,))]
    most = max(trials)
    turns = [Variant(most, captured, mps=False) for captured in (False, True)] if on_gpu and most > 1 else []
    return ways + turns


def measure(
    file: Path, overrides: Sequence[str], variant: Variant, seconds: float, gpus: list[str], folder: Path
) -> Packed:
    """Run the trials of a variant side by side.

    Raises:
        click.ClickException: one of them failed, with what it said.
    """
    slots = Slots(variant.trials, gpus, folder, variant.mps)
    with ExitStack() as stack:
        stack.callback(slots.close)
        trials = [_start(slots, number, file, overrides, variant, folder, stack) for number in range(variant.trials)]
        for trial, log in trials:
            if _line(trial) != READY:
                raise click.ClickException(f"a trial of {variant} failed: {_last_words(log)}")
        begin = time.monotonic() + _START_SECONDS
        for trial, _ in trials:
            assert trial.stdin is not None
            trial.stdin.write(json.dumps(asdict(Window(begin, seconds))) + "\n")
            trial.stdin.flush()
        busy = _busy_share(gpus[0], begin, seconds) if gpus else None
        answers = [(_line(trial), log) for trial, log in trials]
    for line, log in answers:
        if not line:
            raise click.ClickException(f"a trial of {variant} failed: {_last_words(log)}")
    speeds = [Speed(**json.loads(line)) for line, _ in answers]
    return Packed(variant, speeds, slots.uses_mps, busy)


def _start(
    slots: Slots,
    number: int,
    file: Path,
    overrides: Sequence[str],
    variant: Variant,
    folder: Path,
    stack: ExitStack,
) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-m", "benchmarks.packing_trial", str(file), *overrides]
    command += ["--captured" if variant.captured else "--uncaptured", "--threads", str(slots.threads)]
    memory = slots.memory_bytes(number, variant.trials)
    command += [] if memory is None else ["--memory", str(memory)]
    log = folder / f"trial-{number}.log"
    with open(log, "wb") as output:
        trial = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=slots.environment(number),
            pass_fds=slots.inherited(number),
            text=True,
        )
    stack.push(lambda kind, error, trace: _end(trial, at_once=kind is not None))
    return trial, log


def _end(trial: subprocess.Popen[str], at_once: bool) -> None:
    """Let a trial go that has answered; after an error, or a signal, nobody waits for it."""
    if at_once:
        trial.kill()
    try:
        trial.communicate(timeout=20.0)
    except subprocess.TimeoutExpired:
        trial.kill()
        trial.communicate()


def _line(trial: subprocess.Popen[str]) -> str:
    assert trial.stdout is not None
    return trial.stdout.readline().strip()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _busy_share(gpu: str, begin: float, seconds: float) -> float | None:
    """Mean of what nvidia-smi says once a second within the window; nothing is set by it."""
    tool = shutil.which("nvidia-smi")
    found = []
    while tool is not None and time.monotonic() < begin + seconds:
        time.sleep(max(0.0, min(1.0, begin + seconds - time.monotonic())))
        command = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", gpu]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip().isdecimal() and time.monotonic() > begin + 1.0:
            found.append(int(asked.stdout) / 100)
    return statistics.fmean(found) if found else None


def alone(rows: Sequence[Packed], captured: bool) -> float | None:
    """Images per second of one trial, where that was measured."""
    found = [row for row in rows if row.variant.trials == 1 and row.variant.captured == captured]
    return found[0].images_per_second if found else None


def as_markdown(rows: Sequence[Packed], free_before: int | None) -> str:
    """The table.

    Args:
        free_before: bytes that were free on the GPU before any trial began; None where there is none.
    """
    header = ["trials", "step", "MPS", "images/s together", "x one uncaptured", "x one captured"]
    header += ["MiB per trial", "CPU cores busy", "GPU busy"]
    references = [alone(rows, captured) for captured in (False, True)]
    return markdown_table(
        header,
        [
            [
                str(row.variant.trials),
                "captured" if row.variant.captured else "uncaptured",
                "yes" if row.by_mps else "no",
                f"{row.images_per_second:,.0f}",
                *("" if one is None else f"{row.images_per_second / one:.2f}" for one in references),
                f"{memory_per_trial(row, free_before) / 2**20:,.0f}",
                f"{row.cores:.1f}",
                "" if row.busy is None else f"{row.busy:.0%}",
            ]
            for row in rows
        ],
    )


def memory_per_trial(row: Packed, free_before: int | None) -> float:
    """Bytes: of the GPU, with CUDA contexts and what MPS takes, or of the process."""
    free = [speed.free_bytes for speed in row.speeds if speed.free_bytes is not None]
    if free_before is not None and free:
        return (free_before - min(free)) / row.variant.trials
    return statistics.fmean(speed.process_bytes for speed in row.speeds)


def what_limits(row: Packed, cores: int) -> str:
    """What keeps trials from being faster together, as far as the numbers say."""
    if row.busy is not None and row.busy >= _FULL:
        return f"the GPU, on which a kernel ran {row.busy:.0%} of the time"
    if row.cores >= _FULL * cores:
        return f"the CPU, {row.cores:.1f} of whose {cores} cores were busy"
    return "neither the GPU's nor the CPU's time: trials waited, for the driver, for each other or for other programs"


def conclusions(rows: Sequence[Packed], cores: int) -> str:
    """A line for the largest number of trials in each way, against one trial."""
    most = max(row.variant.trials for row in rows)
    lines = []
    for row in rows:
        one = alone(rows, row.variant.captured)
        if row.variant.trials == most > 1 and row.variant.mps and one is not None:
            way = "captured" if row.variant.captured else "uncaptured"
            times = row.images_per_second / one
            lines.append(
                f"- {most} {way} trials: {times:.2f} times one {way} trial; limited by {what_limits(row, cores)}."
            )
    return "\n".join(lines)


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        numbers = [int(word) for word in value.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"give numbers of trials such as 1,2,4,8, got {value!r}")
    return sorted(set(numbers))


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("pipelines/cifar10.yaml"))
@click.argument("overrides", nargs=-1)
@click.option("--trials", default="1,2,4,8", show_default=True, callback=_numbers, help="Numbers of trials.")
@click.option("--device", default=None, help="As training.device: auto, cpu, cuda or mps.")
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(min=0.1), help="Of each window.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this file.")
def main(
    file: Path, overrides: tuple[str, ...], trials: list[int], device: str | None, seconds: float, out: Path | None
) -> None:
    """Measure trials side by side."""
    changes = [*overrides, *([] if device is None else [f"training.device={device}"])]
    try:
        loaded = load_pipeline(file, changes)
        check_pipeline(loaded)
        compute = resolve_compute(loaded.pipeline.training)
        on_gpu = compute.device.type == "cuda"
        gpus = visible_gpus()[:1] if on_gpu else []
        refuse_too_many(max(trials), gpus, f"--trials {max(trials)}")
    except JepaLabError as error:
        raise click.ClickException(str(error)) from error
    free = free_memory(tuple(gpus)) if on_gpu else None
    free_before = None if free is None else free[0]
    rows: list[Packed] = []
    with leaving_on_signals(), tempfile.TemporaryDirectory(prefix="jepa-lab-packing-") as folder:
        for variant in variants(trials, on_gpu):
            rows.append(measure(file, changes, variant, seconds, gpus, Path(folder)))
            click.echo(as_markdown(rows, free_before).splitlines()[-1], err=True)  # for who cuts it short
    body = f"{as_markdown(rows, free_before)}\n\n{conclusions(rows, num_cores())}"
    body += f"\n\nBatch {loaded.pipeline.training.batch_size}; all trials measured over the same {seconds:g} s."
    command = f"python -m benchmarks.packing {shlex.join(sys.argv[1:])}"
    click.echo(report(f"Trials of {loaded.pipeline.name} side by side", body, compute, command, out))


if __name__ == "__main__":
    main()
