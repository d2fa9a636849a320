"""A share of a table's trials, trained by one of several machines that nothing but a shared folder connects.

Nobody schedules: a person says which trials are whose. A share tells no study; whoever gathers, `jepa-lab report` or a
sweep without a share, finds the finished run folders. A trial that two shares have is trained by the first one, and
the other waits for it.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from optuna.storages import InMemoryStorage

from jepa_lab.composition.stopping import interruption, stoppable
from jepa_lab.composition.tracker import build_tracker
from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.interruption import StopSignals
from jepa_lab.output import unfailing_output
from jepa_lab.sweeps.agreement import agree
from jepa_lab.sweeps.choices import names_in, parse_numbers
from jepa_lab.sweeps.engine import Engine
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.plan import Plan
from jepa_lab.sweeps.progress import build_sweep_display
from jepa_lab.sweeps.results import table_trials
from jepa_lab.sweeps.study import PlannedTrial, TableStudy, planned_trials
from jepa_lab.sweeps.sweep import SweepSettings, baseline_pipeline, sweep_folder
from jepa_lab.sweeps.workshop import Workshop, opened_workshop
from jepa_lab.tracking.atomic import explained_writes
from jepa_lab.tracking.run_folder import RunFolder


@dataclass(frozen=True)
class ShareChoice:
    """Which trials of a table are trained here, as they were given; a trial must be in all that is given.

    Attributes:
        only: numbers, as in `0-9`. arms: names. seeds: numbers, as in `0-2`.
    """

    only: str | None = None
    arms: Sequence[str] = ()
    seeds: str | None = None

    def __bool__(self) -> bool:
        return self.only is not None or bool(self.arms) or self.seeds is not None

    def numbers(self, plan: Plan) -> list[int]:
        """The numbers of the trials.

        Raises:
            ConfigError: the plan has no such trials.
        """
        if plan.search is not None:
            raise ConfigError(
                f"--only, --arm and --seed choose trials of a table, and {plan.name} is a search, whose points depend "
                "on those before them; leave them out, or use --executor slurm or ray"
            )
        planned = list(enumerate(_trials_of(plan)))
        if self.only is not None:
            numbers = set(parse_numbers(self.only, "--only", "trial"))
            _refuse_unknown(numbers, set(range(len(planned))), f"trials 0 to {len(planned) - 1}", "--only")
            planned = [each for each in planned if each[0] in numbers]
        if self.arms:
            arms = names_in(self.arms, [arm.name for arm in plan.arms], "--arm")
            planned = [each for each in planned if each[1].arm in arms]
        if self.seeds is not None:
            seeds = set(parse_numbers(self.seeds, "--seed", "seed"))
            _refuse_unknown(seeds, set(plan.seeds), f"the seeds {', '.join(map(str, plan.seeds))}", "--seed")
            planned = [each for each in planned if each[1].seed in seeds]
        if not planned:
            raise ConfigError("--only, --arm and --seed together leave no trial; a trial must be in all that is given")
        return [number for number, _ in planned]


def _trials_of(plan: Plan) -> list[PlannedTrial]:
    return planned_trials([arm.name for arm in plan.arms], plan.seeds)


def _refuse_unknown(given: set[int], known: set[int], words: str, option: str) -> None:
    unknown = sorted(given - known)
    if unknown:
        raise ConfigError(f"{unknown[0]} is not in the plan, which has {words}", place=option)


class TrialsFailed(RunStopped):
    """Trials of a share failed each time they were tried."""


@dataclass(frozen=True)
class ShareOutcome:
    """What a share has found.

    Attributes:
        trials: a line per trial, see `trials_frame`.
        stopped_by: the signal that stopped it, or None; the same command resumes it.
    """

    folder: SweepFolder
    trials: pd.DataFrame
    stopped_by: signal.Signals | None

    def error(self) -> TrialsFailed | None:
        """What a script must learn where a trial has failed: nobody may look at this machine's output."""
        failed = int((self.trials["status"] == "FAILED").sum())
        if not failed:
            return None
        return TrialsFailed(
            f"{failed} of the {len(self.trials)} trials of this share failed; see their log.txt in "
            f"{self.folder.trials}, and run the same command again to try them again"
        )


def share_frame(plan: Plan, numbers: Sequence[int]) -> pd.DataFrame:
    """Number, arm and seed of trials of a table."""
    planned = _trials_of(plan)
    lines = [(number, planned[number].arm, planned[number].seed) for number in numbers]
    return pd.DataFrame(lines, columns=["number", "arm", "seed"])


def refuse_engine(engine: Engine, storage: str | None) -> None:
    """Raises:
    ConfigError: a share has no use for it.
    """
    if engine.component.is_remote:
        raise ConfigError(
            f"--only, --arm and --seed split a sweep by hand, and the executor {engine.name} distributes it by itself; "
            "leave them out, or add --executor local"
        )
    if storage is not None:
        raise ConfigError(
            "--storage: a share of a sweep tells no study; leave it out, and give it to the command that gathers "
            "(jepa-lab report, or jepa-lab sweep without --only, --arm and --seed)"
        )


def run_share(plan: Plan, ablation: str, settings: SweepSettings, numbers: Sequence[int]) -> ShareOutcome:
    """Train trials of a table, or resume them; other machines may be at work on others in the same folder.

    Args:
        ablation: text of the ablation file.
        numbers: of the trials.
    Raises:
        ConfigError: this machine does not see what the first one saw.
        RunFolderError: another plan is in the sweep's place.
        RunInterrupted, RunTerminated: a second Ctrl-C; what the trials had saved stays.
    """
    build_tracker(baseline_pipeline(plan), RunFolder(settings.root / plan.folder_name))  # refuses a wrong store
    settings.engine.check_machine()
    folder = sweep_folder(plan, ablation, settings.root)
    logs = folder.shares / f"{socket.gethostname()}-{os.getpid()}"
    with explained_writes(logs):
        logs.mkdir(parents=True, exist_ok=True)
    agree(folder)
    study = TableStudy(InMemoryStorage(), plan.name, plan.direction, [arm.name for arm in plan.arms], plan.seeds)
    study.enqueue(_trials_of(plan))
    with unfailing_output(), stoppable(StopSignals()) as stop:
        try:
            executor = settings.engine.build(folder, logs)
            with opened_workshop(plan, folder, executor, stop, build_sweep_display()) as workshop:
                complete = _perform(workshop, study, set(numbers))
        except KeyboardInterrupt as error:
            raise interruption(error, f"(run the same command again to resume {folder.path})") from None
    trials = table_trials(folder, study)
    return ShareOutcome(folder, trials[trials["number"].isin(numbers)], None if complete else stop.received)


def _perform(workshop: Workshop, study: TableStudy, numbers: set[int]) -> bool:
    """Train them; False if a signal stopped it. References are probed by whoever has the first trial."""
    if 0 in numbers and not workshop.probe_references():
        return False
    left = [(number, planned) for number, planned in study.to_run() if number in numbers]
    return workshop.queue(study).perform(workshop.trials(study, left, workshop.plan.arms), 0, len(left))
