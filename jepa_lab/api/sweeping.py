"""`jepa_lab.sweep`: every arm of an ablation with every seed, and the comparison as a data frame."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from jepa_lab.api.errors import explained_errors
from jepa_lab.api.inputs import Overrides, found_file, grid_texts, override_texts
from jepa_lab.composition.stopping import interruption
from jepa_lab.errors import ConfigError
from jepa_lab.interruption import StopRequested
from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.table import build_table
from jepa_lab.reports.table_csv import table_frame
from jepa_lab.sweeps.choices import Choices
from jepa_lab.sweeps.engine import Engine, EngineChoice, choose_engine
from jepa_lab.sweeps.planned import Planned, plan_file
from jepa_lab.sweeps.shares import ShareChoice, ShareOutcome, refuse_engine, run_share
from jepa_lab.sweeps.sweep import SweepOutcome, SweepSettings, refuse_references, run_sweep
from jepa_lab.training.team import refuse_torchrun


@dataclass(frozen=True)
class SweepRequest:
    """What to sweep, and how; see `sweep` for the meaning.

    Attributes:
        file: ablation, or pipeline with several values of some keys.
        overrides: `key=value` each, of a pipeline `key=value,value` too.
        choices: what is chosen of the ablation.
        sweeps: folder of the sweep folders.
        engine: what is chosen of who trains the trials.
    """

    file: Path
    overrides: Sequence[str]
    preset: str | None
    choices: Choices
    sweeps: Path
    engine: EngineChoice
    storage: str | None


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that has been planned; nothing has been written yet.

    Attributes:
        engine: what trains the trials.
    """

    request: SweepRequest
    planned: Planned
    engine: Engine

    def check_references(self) -> None:
        """Raises:
        ConfigError: a reference that is still to be probed cannot be read.
        """
        refuse_references(self.planned.plan, self.request.sweeps)

    def perform(self) -> SweepOutcome:
        """Train what is left, and write the report."""
        root = self.request.sweeps
        settings = SweepSettings(root, self.request.storage, self.engine, sys.argv)
        return run_sweep(self.planned.plan, self.planned.text(root), settings)

    def share(self, choice: ShareChoice) -> list[int]:
        """Numbers of the trials that are to be trained here, where other machines train the others.

        Raises:
            ConfigError: the plan has no such trials, or the sweep cannot be split by hand.
        """
        refuse_engine(self.engine, self.request.storage)
        return choice.numbers(self.planned.plan)

    def perform_share(self, numbers: Sequence[int]) -> ShareOutcome:
        """Train these trials alone; nothing is reported."""
        root = self.request.sweeps
        settings = SweepSettings(root, None, self.engine, sys.argv)
        return run_share(self.planned.plan, self.planned.text(root), settings, numbers)


def prepare_sweep(request: SweepRequest) -> PreparedSweep:
    """The plan of a request, and what is to train it.

    Raises:
        ConfigError: all that is wrong.
    """
    planned = plan_file(request.file, request.overrides, request.preset, request.choices)
    plan = planned.plan
    return PreparedSweep(request, planned, choose_engine(plan.engine, request.engine, plan.on_gpu))


@dataclass(frozen=True)
class SweepResult:
    """What a finished sweep gave.

    Attributes:
        folder: of the sweep, with the run folders of its trials.
        report: the HTML page; tables and figures as files lie beside it.
        content: what the report was made from.
        tracker: where the tracker's copy is, and how to open it.
    """

    folder: Path
    report: Path
    content: ReportInput
    tracker: str

    @cached_property
    def table(self) -> pd.DataFrame:
        """A line per arm and control: mean, intervals, difference from the baseline, p; the columns of table.csv."""
        return table_frame(build_table(cleaned(self.content)))

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A line per trial: arm, seed, status, the swept keys, and every number of its result."""
        return cleaned(self.content).trials

    def __repr__(self) -> str:
        return f"SweepResult(folder={str(self.folder)!r}, {len(self.content.trials)} trials)"


def sweep(
    ablation: str | os.PathLike[str],
    overrides: Overrides | None = None,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    preset: str | None = None,
    base: str | os.PathLike[str] | None = None,
    seeds: Iterable[int] | None = None,
    arms: str | Sequence[str] | None = None,
    metric: str | None = None,
    sweeps: str | os.PathLike[str] = "sweeps",
    slots: int | None = None,
    slots_per_gpu: int | None = None,
    executor: str | None = None,
    executor_options: Overrides | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    memory: str | None = None,
    time: str | None = None,
    storage: str | None = None,
) -> SweepResult:
    """Train every arm with every seed, and compare them, as `jepa-lab sweep` does. Call it again to resume.

    Args:
        ablation: the name of an ablation that comes with jepa-lab, such as `predictor_size`, or the path of a file;
            with `grid` the name or path of a pipeline.
        overrides: values by dotted keys, for every arm.
        grid: several values by dotted keys, such as `{"masker": ["multi_block", "random"]}`: an arm for each
            combination, the first values being the baseline.
        preset: applied to every arm, with fewer seeds; `smoke` is the whole job in a minute or two.
        base, metric: in place of what the ablation says.
        seeds: whole numbers, such as `range(5)`, in place of the ablation's.
        arms: names of those to train; the baseline is always trained.
        sweeps: folder of the sweep folders.
        slots: trials in parallel; by default one per GPU, or one per CPU core.
        slots_per_gpu: trials that share each GPU, instead of `slots`.
        executor: `local`, `slurm` or `ray`, in place of the ablation's. executor_options: its parameters.
        cpus, gpus, memory, time: what each trial gets, such as `cpus=4, gpus=1, memory="16G", time="2h"`.
        storage: Optuna storage URL; by default a journal in the sweep's folder.
    Raises:
        JepaLabError: see `jepa_lab.run`; after Ctrl-C a `RunInterrupted`: finished trials are kept.
    """
    with explained_errors(sweep):
        refuse_torchrun("sweep")
        for name, count in (("slots", slots), ("slots_per_gpu", slots_per_gpu)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} must be at least 1, got {count}; leave it out for the usual number")
        file = found_file(Path(ablation), "ablation" if grid is None else "pipeline")
        choices = Choices(
            base=None if base is None else found_file(Path(base), "pipeline"),
            seeds=None if seeds is None else _checked_seeds(seeds),
            metric=metric,
            arms=None if arms is None else (arms,) if isinstance(arms, str) else tuple(arms),
        )
        texts = [*override_texts(overrides), *grid_texts(grid)]
        options = override_texts(executor_options)
        engine = EngineChoice(executor, options, slots, slots_per_gpu, cpus, gpus, memory, time)
        prepared = prepare_sweep(SweepRequest(file, texts, preset, choices, Path(sweeps), engine, storage))
        if grid is not None and prepared.planned.grid is None:
            raise ConfigError(f"grid goes with a pipeline, and {file} is an ablation, which has arms of its own")
        outcome = prepared.perform()
        if outcome.stopped_by is not None:
            where = f"(call it again to resume {outcome.folder.path})"
            raise interruption(StopRequested(outcome.stopped_by), where)
        report = outcome.folder.report / "report.html"
        return SweepResult(outcome.folder.path, report, outcome.report, outcome.tracker)


def _checked_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """Raises:
    ConfigError: these are no seeds.
    """
    try:
        found = None if isinstance(seeds, str) else tuple(map(operator.index, seeds))
    except TypeError:
        found = None
    if found is None or not all(0 <= seed < 2**63 for seed in found):
        raise ConfigError(f"seeds are whole numbers from 0 to 2^63 - 1, such as range(5) or [0, 3], got {seeds!r}")
    return found
