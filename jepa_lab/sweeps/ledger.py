"""What a study is told about trials: what their run folders hold, read as it is written."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import cached_property

from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.errors import RunFolderError
from jepa_lab.resume import run_stem
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.study import PlannedTrial, Study
from jepa_lab.sweeps.trial_runs import TrialRuns
from jepa_lab.sweeps.watch import TrialWatch
from jepa_lab.tracking.mirror_cursor import mlflow_run_id
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore

logger = logging.getLogger(__name__)


@dataclass
class Trial:
    """A trial that is not over.

    Attributes:
        pipeline: its resolved pipeline.
        tags, params: what the tracker is told beside the run's own.
        failures: attempts that failed. deaths: workers that it lost in a row. place: where it runs now.
        busy_until: time.monotonic() before which it is left to the process that was at work on it; 0 for none.
        times_busy: how often it was. standstills: interruptions in a row that found nothing new saved.
        saved_step: the last checkpoint when it last stopped so; None for none.
        began: time.monotonic() when it was given to its worker. is_first: of a new worker, which has yet to start.
        is_resumed: whether an earlier attempt left a run folder.
        reported: epochs of which the study knows the online probe.
        twins: trials of the same pipeline, which a search may propose, that wait for this one's result.
    """

    number: int
    planned: PlannedTrial
    pipeline: LoadedPipeline
    tags: dict[str, str]
    params: dict[str, str]
    failures: int = 0
    deaths: int = 0
    place: str = ""
    busy_until: float = 0.0
    times_busy: int = 0
    standstills: int = 0
    saved_step: int | None = None
    watch: TrialWatch | None = None
    began: float = field(default_factory=time.monotonic)
    is_first: bool = False
    is_resumed: bool = False
    reported: set[int] = field(default_factory=set)
    twins: list[Trial] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Arm and seed."""
        return f"{self.planned.arm} seed {self.planned.seed}"

    @property
    def seconds(self) -> float:
        """That it has run; those of a new worker count from the first row of its metrics."""
        began = self.began
        if self.is_first:
            began = time.monotonic() if self.watch is None or self.watch.began is None else self.watch.began
        return time.monotonic() - began

    @cached_property
    def run_stem(self) -> str:
        """What its run folders are named after."""
        return run_stem(self.pipeline.pipeline)


@dataclass(frozen=True)
class Ledger:
    """Tells a study about trials.

    Attributes:
        metric: name in result.json of the value that the study is told.
    """

    folder: SweepFolder
    study: Study
    metric: str

    @cached_property
    def runs(self) -> TrialRuns:
        """The run folders of all trials."""
        return TrialRuns(self.folder.trials)

    def see(self, trial: Trial) -> TrialWatch | None:
        """Read what a trial has written, and tell the study the online probe of each epoch; None before it wrote."""
        watch = self._watch(trial)
        if watch is None:
            return None
        try:
            watch.update()
        except RunFolderError as error:
            logger.warning("%s", error)
        for epoch in sorted(watch.intermediate.keys() - trial.reported):
            self.study.report(trial.number, watch.intermediate[epoch], epoch)
            trial.reported.add(epoch)
        return watch

    def _watch(self, trial: Trial) -> TrialWatch | None:
        if trial.watch is None:
            runs = self.runs.all_of(trial.run_stem)
            if runs:
                trial.watch = TrialWatch(runs[-1].metrics, trial.pipeline.pipeline.training.epochs)
        return trial.watch

    def saved_step(self, trial: Trial) -> int | None:
        """The step of its last checkpoint; None where there is none."""
        runs = self.runs.all_of(trial.run_stem)
        steps = CheckpointStore(runs[-1].checkpoints).steps() if runs else []
        return steps[-1] if steps else None

    def finish(self, trial: Trial, run: RunFolder) -> bool:
        """Tell the study the value of a run that has finished; False if its result has none."""
        result = run.read_result()
        assert result is not None, "checked by is_finished"
        value = result["metrics"].get(self.metric)
        if value is None:
            self.fail(trial, f"its result has no {self.metric}")
            return False
        self._note_folder(trial)
        self.study.note(trial.number, "collapsed", bool(result.get("collapsed")))
        self.study.finish(trial.number, float(value))
        return True

    def fail(self, trial: Trial, message: str) -> None:
        """Tell the study that a trial has no value, and why."""
        self._note_folder(trial)
        self.study.note(trial.number, "error", message)
        self.study.finish(trial.number, None)

    def prune(self, trial: Trial) -> None:
        """Tell the study that a trial was ended early."""
        self._note_folder(trial)
        self.study.prune(trial.number)

    def _note_folder(self, trial: Trial) -> None:
        runs = self.runs.all_of(trial.run_stem)
        if runs:
            self.study.note(trial.number, "run_folder", runs[-1].path.relative_to(self.folder.path).as_posix())
            run_id = mlflow_run_id(runs[-1])
            if run_id is not None:  # else it is found among the study's own attributes at the end
                self.study.note(trial.number, "mlflow_run_id", run_id)
