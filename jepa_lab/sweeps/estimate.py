"""`jepa-lab sweep --dry-run`: the plan, and how long its training would take, from a few measured steps."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from jepa_lab.build import build_dataset, build_model, build_whole_step
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.data.resident import ResidentBatches
from jepa_lab.inspection import inspect_pipeline
from jepa_lab.randomness import build_generator
from jepa_lab.sweeps.engine import Engine
from jepa_lab.sweeps.plan import Plan
from jepa_lab.sweeps.plan_table import print_plan_table
from jepa_lab.sweeps.search import Search
from jepa_lab.sweeps.search_sweep import CONFIRMED_POINTS
from jepa_lab.sweeps.watch import duration
from jepa_lab.tables.terminal import print_wrapped
from jepa_lab.tables.wrapping import shown
from jepa_lab.training.compiling import compiler_errors
from jepa_lab.training.devices import memory_errors, resolve_compute

_WARM_STEPS = 2
_TIMED_STEPS = 4


@dataclass(frozen=True)
class PlannedTime:
    """How long the training of a plan would take.

    Attributes:
        trials: that are trained, at most. seconds: for all of them, one after another.
        slots: trials that are trained in parallel.
        shares_gpus: whether slots share a GPU, so that they are slower than one alone.
    """

    trials: int
    seconds: float
    slots: int
    shares_gpus: bool

    def sentence(self) -> str:
        """For people."""
        at_best = "at best " if self.shares_gpus else ""
        at_once = "" if self.slots == 1 else f", {at_best}{duration(self.seconds / self.slots)} on {self.slots} slots"
        return (
            f"estimated training time: {duration(self.seconds)} for {self.trials} trials in sequence{at_once} "
            f"(from {_TIMED_STEPS} timed steps per arm); loading and probing come on top"
        )


def time_plan(plan: Plan, engine: Engine) -> PlannedTime:
    """Time a few steps of every arm; nothing is written.

    Raises:
        DataError: the data set's files are missing. RunStopped: out of memory.
    """
    slots = engine.planned_slots()
    seconds = _seconds_by_arm(plan, Console(highlight=False))
    if plan.search is None:
        trials, total = plan.num_trials, len(plan.seeds) * sum(seconds.values())
    else:
        trials = most_trials(plan, plan.search, slots, seconds[plan.baseline])
        total = trials * seconds[plan.baseline]
    return PlannedTime(trials, total, slots, engine.shares_gpus())


def print_plan(plan: Plan, engine: Engine) -> None:
    """Print the plan, time a few steps of every arm, and print the estimate; see `time_plan`."""
    console = Console(highlight=False)
    print_plan_table(plan, console)
    console.print()
    print_wrapped(time_plan(plan, engine).sentence(), console)


def plan_as_json(plan: Plan, engine: Engine) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "name": plan.name,
        "arms": [arm.name for arm in plan.arms],
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "metric": plan.metric,
        "estimate": asdict(time_plan(plan, engine)),
    }


def _seconds_by_arm(plan: Plan, console: Console) -> dict[str, float]:
    """Training time of a trial of each arm. Which arm is being timed shows meanwhile, in place in a terminal."""
    seconds = {}
    with console.status("") as status:
        for number, arm in enumerate(plan.arms, start=1):
            line = Text(
                f"timing arm {number} of {len(plan.arms)}: {shown(arm.name)}", no_wrap=True, overflow="ellipsis"
            )
            if console.is_terminal:
                status.update(line)
            else:
                console.print(line, soft_wrap=True)
            seconds[arm.name] = training_seconds(plan.pipeline(arm, plan.seeds[0]))
    return seconds


def most_trials(plan: Plan, search: Search, slots: int, seconds: float) -> int:
    """Trials of a search that prunes none: its points, the confirmation, and the winner against the baseline.

    Args:
        seconds: that one takes, for a budget of hours.
    """
    budget = search.budget
    points = budget.trials if budget.hours is None else math.ceil(3600 * budget.hours * slots / seconds)
    assert points is not None, "one of both, by the schema"
    num_seeds = len(plan.seeds)
    confirmed = num_seeds + min(points, CONFIRMED_POINTS) * (num_seeds - 1) if num_seeds > 1 else 0
    return points + confirmed + 2 * num_seeds


def training_seconds(loaded: LoadedPipeline) -> float:
    """Seconds that the training steps of a pipeline would take here, from a few steps on random pixels."""
    pipeline = loaded.pipeline
    with loaded.located("training"):
        compute = resolve_compute(pipeline.training)
    inspection = inspect_pipeline(loaded)
    compute = compute.for_run(pipeline.training, inspection.total_steps)
    channels, size = build_dataset(pipeline.data, pipeline.data.image_size).num_channels, inspection.stored_side
    batch_size, device = pipeline.training.batch_size, compute.device
    pixels = torch.randint(256, (batch_size, channels, size, size), dtype=torch.uint8)
    mean, std = torch.full((channels,), 0.5), torch.full((channels,), 0.25)
    with memory_errors(pipeline.training), compiler_errors():
        images = ResidentBatches(pixels, batch_size, build_generator(0, "order"), device)
        model = build_model(pipeline, channels).to(device)
        take = build_whole_step(pipeline, model, images, mean, std, compute)
        started = 0.0
        for number in range(1, _WARM_STEPS + _TIMED_STEPS + 1):
            take(images.next(), number)
            if number == _WARM_STEPS:
                compute.synchronize()
                started = time.perf_counter()
        compute.synchronize()
    return (time.perf_counter() - started) / _TIMED_STEPS * inspection.total_steps
