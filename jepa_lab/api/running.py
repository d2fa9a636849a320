"""`jepa_lab.run`: train and probe a pipeline, resume a run, or continue one for more epochs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_lab.api.encoder import Encoder, load_encoder
from jepa_lab.api.errors import explained_errors
from jepa_lab.api.inputs import Overrides, PipelineSource, load_given_pipeline, override_texts
from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import LoadedPipeline, changes_no_result, flat_items, load_resolved
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.provenance import component_origins
from jepa_lab.errors import ConfigError
from jepa_lab.parent import choose_parent
from jepa_lab.resume import find_unfinished, resume_run
from jepa_lab.tracking.folder_names import find_folder
from jepa_lab.tracking.metrics import metrics_frame
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.distributed import joined_team
from jepa_lab.training.team import Team

if TYPE_CHECKING:
    import pandas as pd

AUTO = "auto"


@dataclass(frozen=True)
class RunRequest:
    """What to run; see `run` for the meaning.

    Attributes:
        overrides: `key=value` each.
    """

    pipeline: PipelineSource | None
    overrides: Sequence[str] = ()
    preset: str | None = None
    runs: Path = Path("runs")
    resume: Path | None = None
    parent: Path | None = None
    restart_schedules: bool = False


@dataclass(frozen=True)
class RunResult:
    """What a finished run gave.

    Attributes:
        folder: with everything that is known about it.
        metrics: the numbers of result.json, such as `probe/validation_accuracy`; None where something was not measured.
        content: all of result.json.
        tracker: where the tracker's copy is, and how to open it.
    """

    folder: Path
    metrics: dict[str, float | None]
    content: dict[str, Any]
    tracker: str

    @cached_property
    def encoder(self) -> Encoder:
        """The trained target encoder; see `jepa_lab.load_encoder` for others of the run."""
        return load_encoder(self.folder)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline with every value spelled out."""
        file = RunFolder(self.folder).config
        return load_resolved(file.read_text(encoding="utf-8"), str(file))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """What was measured during training, in long form: columns step, epoch, time, name, value."""
        return metrics_frame(RunFolder(self.folder).metrics)

    def __repr__(self) -> str:
        return f"RunResult(folder={str(self.folder)!r}, {len(self.metrics)} metrics)"


def run(
    pipeline: PipelineSource | None = None,
    overrides: Overrides | None = None,
    *,
    preset: str | None = None,
    runs: str | os.PathLike[str] = "runs",
    resume: str | os.PathLike[str] | None = None,
    continue_from: str | os.PathLike[str] | None = None,
    restart_schedules: bool = False,
) -> RunResult:
    """Train an encoder and probe it, as `jepa-lab run` does; progress goes to the standard output.

    Args:
        pipeline: the name of a pipeline that comes with jepa-lab, such as `digits`; the path of a YAML file; its
            content as a dictionary; or a `Pipeline`. None with `resume` or `continue_from`: that run's own.
        overrides: values by dotted keys, such as `{"training.epochs": 10, "masker": "random"}`.
        preset: applied to the pipeline before the overrides; `smoke` is the whole job in seconds.
        runs: folder of the run folders.
        resume: name or folder of a run to resume; `auto` resumes the newest unfinished run of this pipeline and seed,
            or starts a new one.
        continue_from: name or folder of a run whose state a new run starts with, for more epochs.
        restart_schedules: with `continue_from`, count epochs and steps from 0 again.
    Raises:
        JepaLabError: its kind says what happened, its message where, and what to do. `ConfigError`, `DataError` and
            others come before anything is written. After `RunStopped` and `RunInterrupted` (Ctrl-C) the run can be
            resumed.
    """
    if resume is not None and continue_from is not None:
        raise ConfigError("continue_from starts a new run, resume resumes an old one; leave one of them out")
    if restart_schedules and continue_from is None:
        raise ConfigError("restart_schedules goes with continue_from; leave it out")
    if pipeline is None and continue_from is None and resume in (None, AUTO):
        raise ConfigError("name a pipeline, as in jepa_lab.run('digits')")
    request = RunRequest(
        pipeline,
        override_texts(overrides),
        preset,
        Path(runs),
        None if resume is None else Path(resume),
        None if continue_from is None else Path(continue_from),
        restart_schedules,
    )
    with explained_errors(run), joined_team() as team:
        outcome = perform_run(request, team)
    if outcome.figures_error is not None:  # the run itself has finished: its result must not be lost
        warnings.warn(str(outcome.figures_error), RuntimeWarning, stacklevel=2)
    return RunResult(outcome.folder.path, outcome.result["metrics"], outcome.result, outcome.tracker)


def perform_run(request: RunRequest, team: Team) -> RunOutcome:
    """Start, resume or continue a run with the processes of a team, which all call this."""
    team.agree(
        {
            "--resume": str(request.resume),
            "--from": str(request.parent),
            "--restart-schedules": str(request.restart_schedules),
        },
        "start the same command on every machine",
    )
    if request.parent is not None:
        return _continue(request, request.parent, team)
    if request.resume is not None and str(request.resume) != AUTO:
        return _resume(request, request.resume, team)
    return _start(request, team)


def _resume(request: RunRequest, run: Path, team: Team) -> RunOutcome:
    """Resume the run of a name or a path."""
    with team.reporting():
        folder = RunFolder.open(find_folder(run, [request.runs]))
        is_changed = request.pipeline is not None or request.overrides or request.preset
        given = _load(request, folder.config).pipeline if is_changed else None
    return resume_run(folder, given, sys.argv, team=team)


def _agree(loaded: LoadedPipeline, team: Team) -> None:
    """End all unless the pipeline is the same on every machine."""
    settings = {key: repr(value) for key, value in flat_items(loaded.pipeline).items() if not changes_no_result(key)}
    components = {name: str(origin) for name, origin in component_origins(loaded.pipeline).items()}
    team.agree({**settings, **components}, "start the same command with the same pipeline file on every machine")


def _continue(request: RunRequest, run: Path, team: Team) -> RunOutcome:
    """Start a new run with the state of another one; without a pipeline with its configuration."""
    with team.reporting():
        folder = RunFolder.open(find_folder(run, [request.runs]))
        loaded = _load(request, folder.config)
    _agree(loaded, team)
    with team.reporting():
        parent = choose_parent(folder, loaded, restart_schedules=request.restart_schedules)
    team.agree(
        {"--from": f"run {parent.run_uid} at step {parent.step}"}, "name a run in a folder that all machines see"
    )
    return start_run(loaded, request.runs, sys.argv, team=team, parent=parent)


def _start(request: RunRequest, team: Team) -> RunOutcome:
    """Start a run, or resume an unfinished one of the same pipeline."""
    assert request.pipeline is not None, "checked where the request was made"
    with team.reporting():
        loaded = load_given_pipeline(request.pipeline, request.overrides, request.preset)
    _agree(loaded, team)
    if request.resume is not None:
        folder = team.from_leader(lambda: find_unfinished(request.runs, loaded.pipeline))
        if folder is not None:
            print(f"resuming {folder.path}", flush=True)
            return resume_run(folder, loaded.pipeline, sys.argv, team=team)
        print(f"no unfinished run of this pipeline and seed in {request.runs}; starting a new one", flush=True)
    return start_run(loaded, request.runs, sys.argv, team=team)


def _load(request: RunRequest, config: Path) -> LoadedPipeline:
    """The pipeline that was given, else that of a run."""
    return load_given_pipeline(
        config if request.pipeline is None else request.pipeline, request.overrides, request.preset
    )
