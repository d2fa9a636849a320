"""Turns planned trials into tasks and performs them: what tables and searches share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.interruption import StopSignals
from jepa_lab.sweeps.executors.base import Executor
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.ledger import Trial
from jepa_lab.sweeps.plan import Arm, Plan
from jepa_lab.sweeps.progress import SweepDisplay
from jepa_lab.sweeps.queue import TrialQueue
from jepa_lab.sweeps.references import ReferenceProbing
from jepa_lab.sweeps.study import PlannedTrial, Study, TableStudy, planned_trials
from jepa_lab.tracking.description import flat_params


@contextmanager
def opened_workshop(
    plan: Plan, folder: SweepFolder, executor: Executor, stop: StopSignals, display: SweepDisplay
) -> Iterator[Workshop]:
    """A workshop whose executor is closed in the end, whatever happens; the first signal is held back within."""
    try:
        with display, stop.held():
            for sentence in executor.sentences:
                display.message(sentence)
            yield Workshop(plan, folder, executor, stop, display)
    finally:
        executor.close()


@dataclass(frozen=True)
class Workshop:
    """Where the trials of a sweep are performed."""

    plan: Plan
    folder: SweepFolder
    executor: Executor
    stop: StopSignals
    display: SweepDisplay

    def queue(self, study: Study) -> TrialQueue:
        """A queue that tells a study."""
        study.name_metric(self.plan.metric)
        return TrialQueue(
            self.folder, study, self.executor, self.plan.metric, self.plan.retries, self.stop, self.display
        )

    def probe_references(self) -> bool:
        """Probe the references of the plan that have not been probed yet; False if a signal stopped it.

        Raises:
            ConfigError, RunStopped: one could not be probed.
        """
        probing = ReferenceProbing(self.folder, self.executor, self.stop, self.display)
        return probing.perform(self.plan.references, self.plan.pipelines_of_splits())

    def perform_table(self, study: TableStudy, arms: Iterable[Arm], seeds: Iterable[int], role: str) -> bool:
        """Train every arm with every seed; False if a signal stopped it."""
        arms = list(arms)
        study.enqueue(planned_trials([arm.name for arm in arms], seeds, role))
        left, total = study.to_run(), len(study.trials())
        return self.queue(study).perform(self.trials(study, left, arms), total - len(left), total)

    def trials(
        self, study: TableStudy, left: Iterable[tuple[int, PlannedTrial]], arms: Iterable[Arm]
    ) -> Iterator[Trial]:
        """Begin trials of a table, one after another as they are asked for."""
        by_name = {arm.name: arm for arm in arms}
        for number, planned in left:
            arm = by_name[planned.arm]
            study.begin(number)
            yield self.trial(number, planned, self.plan.pipeline(arm, planned.seed), self.plan.flat_values(arm))

    def trial(self, number: int, planned: PlannedTrial, pipeline: LoadedPipeline, values: Mapping[str, Any]) -> Trial:
        """A trial with what the tracker is told about it.

        Args:
            values: of every swept key, the baseline's too, so that the tracker can draw all trials beside each other.
        """
        tags = {
            "sweep": self.plan.name,
            "sweep_folder": str(self.folder.path.resolve()),
            "arm": planned.arm,
            "role": planned.role,
            "is_baseline": str(planned.arm == self.plan.baseline).lower(),
        }
        return Trial(number, planned, pipeline, tags, {"arm": planned.arm, **flat_params(dict(values))})
