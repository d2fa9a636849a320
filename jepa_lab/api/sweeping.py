"""`jepa_lab.sweep`: every arm of an ablation with every seed, and the comparison as a data frame."""

from __future__ import annotations

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
from jepa_lab.sweeps.executors import EXECUTORS
from jepa_lab.sweeps.planned import plan_file
from jepa_lab.sweeps.sweep import SweepSettings, run_sweep
from jepa_lab.training.team import refuse_torchrun


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
    arms: Sequence[str] | None = None,
    metric: str | None = None,
    sweeps: str | os.PathLike[str] = "sweeps",
    slots: int | None = None,
    slots_per_gpu: int | None = None,
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
        base, seeds, arms, metric: in place of what the ablation says; the baseline is always trained.
        sweeps: folder of the sweep folders.
        slots: trials in parallel; by default one per GPU, or one per CPU core.
        slots_per_gpu: trials that share each GPU, instead of `slots`.
        storage: Optuna storage URL; by default a journal in the sweep's folder.
    Raises:
        JepaLabError: see `jepa_lab.run`; after Ctrl-C a `RunInterrupted`: finished trials are kept.
    """
    with explained_errors():
        refuse_torchrun("sweep")
        for name, count in (("slots", slots), ("slots_per_gpu", slots_per_gpu)):
            if count is not None and count < 1:
                raise ConfigError(f"{name} must be at least 1, got {count}; leave it out for the usual number")
        file = found_file(Path(ablation), "ablation" if grid is None else "pipeline")
        choices = Choices(
            base=None if base is None else found_file(Path(base), "pipeline"),
            seeds=None if seeds is None else tuple(seeds),
            metric=metric,
            arms=None if arms is None else tuple(arms),
        )
        planned = plan_file(file, [*override_texts(overrides), *grid_texts(grid)], preset, choices)
        if grid is not None and planned.grid is None:
            raise ConfigError(f"grid goes with a pipeline, and {file} is an ablation, which has arms of its own")
        plan, root = planned.plan, Path(sweeps)
        local = EXECUTORS.get("local")
        executor = local.config_type.model_validate({"slots": slots, "slots_per_gpu": slots_per_gpu})
        local.component.planned_slots(executor, plan.on_gpu)
        outcome = run_sweep(plan, planned.text(root), SweepSettings(root, storage, executor, sys.argv))
        if outcome.stopped_by is not None:
            where = f"(call it again to resume {outcome.folder.path})"
            raise interruption(StopRequested(outcome.stopped_by), where)
        report = outcome.folder.report / "report.html"
        return SweepResult(outcome.folder.path, report, outcome.report, outcome.tracker)
