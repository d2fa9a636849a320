"""`jepa-lab sweep`: every arm with every seed, then the report."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_lab.composition.stopping import interruption, stoppable
from jepa_lab.composition.tracker import build_tracker
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.errors import JepaLabError, RunFolderError
from jepa_lab.interruption import StopSignals
from jepa_lab.output import unfailing_output
from jepa_lab.reports.content import ReportInput
from jepa_lab.reports.report import write_report
from jepa_lab.reports.winner import winner_of
from jepa_lab.sweeps.agreement import agree
from jepa_lab.sweeps.engine import Engine
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.outages import Patience
from jepa_lab.sweeps.plan import Plan, differences
from jepa_lab.sweeps.progress import build_sweep_display
from jepa_lab.sweeps.references import check_references
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.search_sweep import perform_search
from jepa_lab.sweeps.studies import Studies
from jepa_lab.sweeps.study import Study, open_storage
from jepa_lab.sweeps.watch import ONLINE_PROBE
from jepa_lab.sweeps.workshop import opened_workshop
from jepa_lab.tracking.base import MirrorState, Tracker
from jepa_lab.tracking.description import RunDescription, RunStatus, flat_params
from jepa_lab.tracking.environment import describe_environment
from jepa_lab.tracking.mirror_cursor import mlflow_run_id
from jepa_lab.tracking.run_folder import RunFolder

_TRACKER_SECONDS = 60.0
_LOCK_SECONDS = 1.0
_DATABASE_SECONDS = 300.0
"""How long a sweep waits for its database, per outage."""


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep is performed; nothing here changes a result.

    Attributes:
        root: folder of the sweep folders.
        storage: Optuna URL; None for a journal in the sweep's folder.
        engine: what trains the trials.
        command: the command line.
    """

    root: Path
    storage: str | None
    engine: Engine
    command: Sequence[str]


@dataclass(frozen=True)
class SweepOutcome:
    """What the end of a sweep tells.

    Attributes:
        stopped_by: the signal that stopped it, or None; the same command resumes it.
        report: what the report was made from.
        tracker: where the tracker's copy is. mirror: how complete it is.
    """

    folder: SweepFolder
    stopped_by: signal.Signals | None
    report: ReportInput
    tracker: str
    mirror: MirrorState


def baseline_pipeline(plan: Plan) -> Pipeline:
    """The pipeline whose `tracking` section is that of the sweep."""
    return plan.pipeline(plan.arm(plan.baseline), plan.seeds[0]).pipeline


def sweep_folder(plan: Plan, ablation: str, root: Path) -> SweepFolder:
    """The folder of a plan's sweep, made if it is not there.

    Raises:
        RunFolderError: another plan is in it, or it cannot be written.
    """
    folder = SweepFolder.open_or_create(root, plan.folder_name, ablation, plan.to_record())
    refuse_other_plan(folder.read_plan(), plan, str(folder.path))
    return folder


def refuse_other_plan(recorded: dict[str, Any], plan: Plan, where: str) -> None:
    """A sweep resumes the plan it began with.

    Raises:
        RunFolderError: naming what differs.
    """
    changed = differences(recorded, plan)
    if changed:
        raise RunFolderError(
            f"{where} holds another plan under the name {plan.name!r}: {'; '.join(changed)}. "
            "Give the ablation another name, or put the plan back"
        )


def refuse_other_study(study: Study, plan: Plan) -> None:
    """A storage resumes the plan that its study of this name was made for.

    Raises:
        RunFolderError: naming what differs, as far as it is known.
    """
    recorded, name = study.recorded_plan(), "the storage"
    if isinstance(recorded, dict):  # an early jepa-lab kept all of it
        refuse_other_plan(recorded, plan, name)
    elif recorded not in (None, plan.digest):
        place = study.described("sweep_folder")
        if place is not None and SweepFolder(Path(place)).plan.is_file():
            refuse_other_plan(SweepFolder(Path(place)).read_plan(), plan, name)
            return
        raise RunFolderError(
            f"{name} holds another plan under the name {plan.name!r}, of the sweep in {place}; give the ablation "
            "another name, or give another --storage"
        )


def words_of(plan: Plan, folder: SweepFolder) -> dict[str, str]:
    """What Optuna's study of a plan is described by."""
    return {
        "plan": plan.digest,
        "metric": f"{plan.metric} ({plan.direction})",
        "intermediate values": ONLINE_PROBE,
        "baseline": plan.baseline,
        "seeds": ", ".join(map(str, plan.seeds)),
        "sweep_folder": str(folder.path.resolve()),
    }


def refuse_references(plan: Plan, root: Path) -> None:
    """Before anything is written, every reference that is not probed yet can be read.

    Raises:
        ConfigError: one cannot be.
    """
    check_references(plan.references, plan.pipelines_of_splits(), SweepFolder(root / plan.folder_name))


def refuse_other_folder(study: Study, folder: SweepFolder) -> None:
    """The trials that a storage knows have their run folders in the sweep folder, which may have been moved.

    Raises:
        RunFolderError: naming where they are, or which one is missing.
    """
    recorded = study.described("sweep_folder")
    if (
        recorded is not None
        and Path(recorded) != folder.path.resolve()
        and (Path(recorded) / folder.plan.name).exists()
    ):
        raise RunFolderError(
            f"the storage already holds this sweep, with its trials in {recorded}; resume it there with "
            f"--sweeps {shlex.quote(str(Path(recorded).parent))}, or give another storage"
        )
    missing = [name for name in study.run_folders() if not (folder.path / name).is_dir()]
    if missing:
        raise RunFolderError(
            f"{len(missing)} of the finished trials no longer have a run folder in {folder.path}, such as "
            f"{missing[0]}; put them back, or start again with another sweep folder and another storage"
        )


class Sweep:
    """A plan that is being carried out.

    Only the holder of the folder's lock may make one.

    Args:
        stop: set by signals.
    Raises:
        RunFolderError: the storage holds another plan under this name, or the trials of another folder.
    """

    def __init__(self, plan: Plan, folder: SweepFolder, settings: SweepSettings, stop: StopSignals) -> None:
        self.plan, self.folder, self.settings, self.stop = plan, folder, settings, stop
        self.display = build_sweep_display()
        patience = Patience(
            _DATABASE_SECONDS,
            meanwhile="; running trials continue",
            remedy=f"what was trained is kept in {folder.path}; start the database, then run the same command again to "
            "resume",
            say=self.display.message,
            stop=stop,
        )
        storage = open_storage(folder.journal, settings.storage, patience=patience)
        self.studies = Studies(storage, plan.to_record())
        refuse_other_study(self.studies.first, plan)
        refuse_other_folder(self.studies.first, folder)
        self.studies.first.describe(words_of(plan, folder))

    def perform(self) -> bool:
        """Run what is left of the plan; False if a signal stopped it."""
        executor = self.settings.engine.build(self.folder)
        with opened_workshop(self.plan, self.folder, executor, self.stop, self.display) as workshop:
            if not workshop.probe_references():
                return False
            if self.plan.search is None:
                return workshop.perform_table(self.studies.table, self.plan.arms, self.plan.seeds, "arm")
            return perform_search(self.plan, self.plan.search, self.studies, workshop)


class SweepRecord:
    """The sweep's own entry in the tracker, parent of its trials: written like a run, and followed by one mirror."""

    def __init__(self, plan: Plan, folder: SweepFolder, command: Sequence[str]) -> None:
        self.folder = folder
        record = folder.record
        baseline = baseline_pipeline(plan)
        self.tracker: Tracker = build_tracker(baseline, record)
        record.figures.mkdir(exist_ok=True)
        record.write_environment(describe_environment(command, baseline.training.device))
        record.write_description(self._description(plan))
        record.remove_result()
        record.metrics.touch()
        self.tracker.start(record)

    def _description(self, plan: Plan) -> RunDescription:
        content = {
            "kind": plan.kind,
            "baseline": plan.baseline,
            "metric": plan.metric,
            "direction": plan.direction,
            "seeds": list(plan.seeds),
            "arms": [arm.name for arm in plan.arms],
            "swept_keys": list(plan.swept_keys),
        }
        tags = {"sweep": plan.name, "role": "sweep", "sweep_folder": str(self.folder.path.resolve())}
        return RunDescription(flat_params(content, "plan."), tags, None, self.tracker.settings())

    def end(
        self,
        status: RunStatus,
        metrics: Mapping[str, float],
        over: int,
        tags: Mapping[str, str] | None = None,
        tracker_seconds: float | None = None,
    ) -> MirrorState:
        """Write how the sweep ended, and let the tracker catch up.

        Args:
            over: trials that are over, which is the step of the metrics: a sweep that goes on has later ones.
            tags: what was found, in words.
            tracker_seconds: how long to wait for it; None is a minute.
        """
        self.folder.record.write_result(status, metrics, over, tags={} if tags is None else dict(tags))
        return self.tracker.close(_TRACKER_SECONDS if tracker_seconds is None else tracker_seconds)


def run_sweep(plan: Plan, ablation: str, settings: SweepSettings) -> SweepOutcome:
    """Carry out a plan, or resume it; the same command may be given again and again.

    Args:
        ablation: text of the ablation file.
    Raises:
        RunFolderError: another process is at work on the sweep, or another plan is in its place.
        ConfigError: so many trials do not fit on this machine, the storage's URL is wrong, or shares of the sweep have
            run other code than this.
        RunStopped: the storage cannot be reached or written; what ran has saved its state.
        RunInterrupted, RunTerminated: a second Ctrl-C; what the trials had saved stays.
    """
    build_tracker(baseline_pipeline(plan), RunFolder(settings.root / plan.folder_name))  # refuses a wrong store
    settings.engine.check_machine()
    refuse_references(plan, settings.root)
    folder = sweep_folder(plan, ablation, settings.root)
    with unfailing_output(), stoppable(StopSignals()) as stop, folder.lock() as lock:
        lock.acquire(_LOCK_SECONDS)
        if folder.shares.is_dir():  # others train, or have trained, a part of it by hand
            agree(folder)
        sweep = Sweep(plan, folder, settings, stop)
        record = SweepRecord(plan, folder, settings.command)
        try:
            complete = sweep.perform()
            report = report_input(folder, sweep.studies)
            write_report(report, folder.report)
        except JepaLabError:
            record.end("FAILED", {}, 0, tracker_seconds=0.0)
            raise
        except KeyboardInterrupt as error:
            record.end("KILLED", {}, 0, tracker_seconds=0.0)  # at once: the mirror goes on by itself
            raise interruption(error, f"(run the same command again to resume {folder.path})") from None
        counts = report.trials["status"].value_counts()
        ended = {status: int(counts.get(status, 0)) for status in ("FINISHED", "COLLAPSED", "FAILED", "PRUNED")}
        over = sum(ended.values())
        metrics = {f"trials/{status.lower()}": float(count) for status, count in ended.items()}
        metrics["trials/unfinished"] = float(len(report.trials) - over)
        winner = winner_of(report) if complete else None
        if winner is not None:
            metrics |= winner.numbers
        mirror = record.end("FINISHED" if complete else "KILLED", metrics, over, {} if winner is None else winner.words)
        run_id = mlflow_run_id(folder.record)
        if run_id is not None:
            sweep.studies.first.describe({"mlflow_run_id": run_id})
        stopped_by = None if complete else stop.received
        return SweepOutcome(folder, stopped_by, report, record.tracker.describe(), mirror)
