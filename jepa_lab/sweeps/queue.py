"""Runs planned trials to their ends: starts them on free slots, tries again what failed, tells the study."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from jepa_lab.config.loading import dump_pipeline
from jepa_lab.errors import ConfigError, RunStopped, StorageUnavailable
from jepa_lab.interruption import StopSignals
from jepa_lab.sweeps.executors.base import Executor
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.ledger import Ledger, Trial
from jepa_lab.sweeps.outages import StoppedWhileWaiting
from jepa_lab.sweeps.progress import SweepDisplay, SweepState
from jepa_lab.sweeps.study import Study
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.sweeps.time_left import TimeLeft
from jepa_lab.tracking.atomic import write_text_atomically
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.run_folder import RunFolder

logger = logging.getLogger(__name__)

_MAX_DEATHS = 5
"""Workers that one trial may lose in a row without saving anything new: what kills each of them would go on to."""
_BUSY_SECONDS, _MOST_BUSY_SECONDS = 5.0, 60.0
"""After which a trial that another process was at work on is looked at again: at first, and at most."""
_MAX_STANDSTILLS = 3
"""Interruptions in a row of one trial that saved nothing new: with the same time limit it would go on for ever."""


class TrialStandsStill(RunStopped):
    """A trial is interrupted again and again before it can save anything."""


class WorkerRefused(ConfigError):
    """A worker's machine does not see what the parent sees."""


class TrialQueue:
    """Performs trials with an executor.

    Args:
        metric: name in result.json of the value that the study is told.
        retries: attempts after the first that a failing trial gets.
        stop: asked between two looks at the workers.
        observe: called with a trial that runs whenever the study has been told of another epoch.
    """

    def __init__(
        self,
        folder: SweepFolder,
        study: Study,
        executor: Executor,
        metric: str,
        retries: int,
        stop: StopSignals,
        display: SweepDisplay,
        observe: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self.folder, self.study, self.executor = folder, study, executor
        self.metric, self.retries, self.stop, self.display, self.observe = metric, retries, stop, display, observe
        self.ledger = Ledger(folder, study, metric)
        self._again: deque[Trial] = deque()
        self._busy: list[Trial] = []  # that other processes are at work on
        self._total: int | None = 0
        self._running: dict[int, Trial] = {}
        self._time_left = TimeLeft()
        self._begun_places: set[str] = set()  # whose workers have ended a trial
        self._over = {"finished": 0, "failed": 0}
        self._stopping = False
        self._is_search = False

    def perform(self, trials: Iterator[Trial], already: int, total: int | None, is_search: bool = False) -> bool:
        """Run trials to their ends.

        Args:
            trials: asked for the next one when a slot is free, so that a search can learn from those before it.
            already: trials that were over before. total: with these, how many there will be; for the display, and
                None where that is not known.
            is_search: whether a trial depends on those before it: one that another process is at work on then keeps
                its slot, so that no more points are asked for meanwhile.
        Returns:
            False if a signal stopped the sweep; trials that ran have saved their state.
        Raises:
            StorageUnavailable, StoppedWhileWaiting: the study could not be told for too long, or a signal came while
                that was waited for; trials that ran have saved their state.
            TrialStandsStill, WorkerRefused: there is something to put right first; here, too, trials have saved.
        """
        self._is_search = is_search
        self._over["finished"] += already
        self._total = total
        try:
            self._perform(trials)
        except (StorageUnavailable, StoppedWhileWaiting, TrialStandsStill, WorkerRefused):
            self._let_running_save()
            raise
        return not self._stopping

    def _perform(self, trials: Iterator[Trial]) -> None:
        while self._start_next(trials) or self._running:
            # All that have replied no longer run, also where telling the study of the first of them fails.
            for trial, reply in [(self._running.pop(reply.number), reply) for reply in self._replies()]:
                self.ledger.see(trial)  # what it wrote since the last look
                self._handle(trial, reply)
                self._again.extend(trial.twins)
                trial.twins.clear()
            self._look()
            if self.stop.received is not None and not self._stopping:
                self.display.message("stopping: running trials save their state; press Ctrl-C again to leave at once")
                self._stopping = True
                self.executor.cancel(list(self._running))

    def _let_running_save(self) -> None:
        """End what runs as a signal would. The study cannot be told of it: the next command reads the run folders."""
        self.display.message("stopping: running trials save their state; press Ctrl-C to leave at once")
        self.executor.cancel(list(self._running))
        known = self.stop.received
        while self._running:
            if self.stop.received != known:  # held back, as the first one always is
                self.stop.raise_if_received()
            for reply in self.executor.poll(self.executor.look_seconds):
                del self._running[reply.number]

    def _replies(self) -> list[Reply]:
        if not self._running:
            time.sleep(self.executor.look_seconds)  # all that is left is at work in other processes
            return []
        return self.executor.poll(self.executor.look_seconds)

    def _start_next(self, trials: Iterator[Trial]) -> bool:
        """Fill the free slots; whether trials are left to start, as far as is known."""
        self._look_at_busy()
        while not self._stopping and self.executor.capacity() > len(self._running) + self._num_waiting():
            trial = self._again.popleft() if self._again else next(trials, None)
            if trial is None:
                return bool(self._busy)
            trial.failures = self.study.failures(trial.number)  # also of earlier commands
            twin = self._running_twin(trial)
            if twin is not None:
                twin.twins.append(trial)
                continue
            finished = self.ledger.runs.finished(trial.run_stem)
            if finished is not None:  # the parent died before it told the study
                self.ledger.see(trial)
                self._finish(trial, finished)
            else:
                self._start(trial)
        return not self._stopping

    def _look_at_busy(self) -> None:
        """Trials that other processes were at work on are due again after a while, when those have ended."""
        now = time.monotonic()
        due = {trial.number: trial for trial in self._busy if trial.busy_until <= now and not self._is_claimed(trial)}
        self._busy = [trial for trial in self._busy if trial.number not in due]
        self._again.extendleft(reversed(due.values()))

    def _is_claimed(self, trial: Trial) -> bool:
        """Whether a worker has the trial: another one would only be told so."""
        return FileLock(self.folder.claim(trial.run_stem), f"the trial {trial.label}").is_held()

    def _num_waiting(self) -> int:
        """Trials that have no worker and keep a slot all the same."""
        return (len(self._busy) if self._is_search else 0) + sum(len(trial.twins) for trial in self._running.values())

    def _running_twin(self, trial: Trial) -> Trial | None:
        """The trial of the same pipeline that is running: both would be the same run folder."""
        return next((each for each in self._running.values() if each.run_stem == trial.run_stem), None)

    def _start(self, trial: Trial) -> None:
        config = self.folder.config(trial.planned.role, trial.number)
        write_text_atomically(config, dump_pipeline(trial.pipeline.pipeline))
        trial.began, trial.watch = time.monotonic(), None
        trial.is_resumed = bool(self.ledger.runs.all_of(trial.run_stem))
        task = self._task(trial, config)
        if not self.executor.adopt(task):
            self.executor.submit(task)
        trial.place = self.executor.place(trial.number)
        trial.is_first = not self.executor.keeps_workers or trial.place not in self._begun_places
        self._running[trial.number] = trial

    def _task(self, trial: Trial, config: Path) -> Task:
        return Task(
            trial.number,
            config.stem,
            config.absolute(),
            self.folder.trials.absolute(),
            self.folder.claim(trial.run_stem),
            trial.tags,
            trial.params,
            needs_probe=self.metric.startswith("probe/"),
            folder=Path.cwd(),
        )

    def _handle(self, trial: Trial, reply: Reply) -> None:
        handlers: dict[str, Callable[[Trial, str], None]] = {
            "finished": self._on_finished,
            "failed": self._on_failed,
            "pruned": self._on_pruned,
            "collapsed": self._on_collapsed,
            "out_of_memory": self._on_out_of_memory,
            "interrupted": self._on_interrupted,
            "died": self._on_died,
            "busy": self._on_busy,
            "refused": self._on_refused,
        }
        if reply.outcome == "died":
            self._begun_places.discard(trial.place)
        else:
            self._begun_places.add(trial.place)
        if reply.message:
            logger.info("trial %d (%s) %s: %s", trial.number, trial.label, reply.outcome, reply.message)
        handlers[reply.outcome](trial, reply.message)

    def _on_finished(self, trial: Trial, message: str) -> None:
        finished = self.ledger.runs.finished(trial.run_stem)
        if finished is None:
            self._on_failed(trial, "the worker said that it had finished, but no finished run folder is there")
            return
        if not trial.is_resumed:
            (self._time_left.first if trial.is_first else self._time_left.others).append(trial.seconds)
        self.study.note(trial.number, "seconds", round(time.monotonic() - trial.began, 1))
        self._finish(trial, finished)

    def _on_failed(self, trial: Trial, message: str) -> None:
        trial.failures += 1
        self.study.note(trial.number, "failures", trial.failures)
        again = trial.failures <= self.retries
        self.display.message(f"{trial.label} failed{'; retrying' if again else ''}: {message}")
        if again:
            self._again.appendleft(trial)  # by the next command, where this one is stopping
        else:
            self._fail(trial, message)

    def _on_pruned(self, trial: Trial, message: str) -> None:
        self.ledger.prune(trial)
        self._over["finished"] += 1

    def _on_collapsed(self, trial: Trial, message: str) -> None:
        self.study.note(trial.number, "collapsed", True)
        self.study.note(trial.number, "error", message)
        self.display.message(f"{trial.label} ended early: {message}")
        self._on_pruned(trial, message)

    def _on_out_of_memory(self, trial: Trial, message: str) -> None:
        change = self.executor.give_more_memory(trial.number)
        if change is None:
            self._on_failed(trial, message)
            return
        if change:
            self.display.message(f"{trial.label}: {message}. {change[0].upper()}{change[1:]}")
        self._again.appendleft(trial)

    def _on_interrupted(self, trial: Trial, message: str) -> None:
        if self._stopping:
            return
        trial.standstills = 0 if self._got_further(trial) else trial.standstills + 1
        if trial.standstills >= _MAX_STANDSTILLS:
            raise TrialStandsStill(
                f"{trial.label} was interrupted {trial.standstills} times in a row before it could save anything new "
                f"(step {trial.saved_step or 0} is its last){f': {message}' if message else ''}; a time limit that is "
                "too short does this (raise --time), or whoever stops its workers; then run the same command again to "
                "resume"
            )
        self._again.appendleft(trial)

    def _got_further(self, trial: Trial) -> bool:
        """Whether a trial has saved a checkpoint since it last lost its worker or was interrupted."""
        before, trial.saved_step = trial.saved_step, self.ledger.saved_step(trial)
        return trial.saved_step != before

    def _on_died(self, trial: Trial, message: str) -> None:
        trial.deaths = 1 if self._got_further(trial) else trial.deaths + 1
        if self._stopping:
            return
        if trial.deaths >= _MAX_DEATHS:
            self._fail(trial, f"{message}; it has lost {trial.deaths} workers in a row without saving anything new")
            return
        self.display.message(f"{trial.label}: {message}; another worker resumes it")
        self._again.appendleft(trial)

    def _on_busy(self, trial: Trial, message: str) -> None:
        if trial.busy_until == 0.0:
            self.display.message(f"{trial.label}: {message.partition(';')[0]}; waiting for it to end")
        trial.busy_until = time.monotonic() + min(_BUSY_SECONDS * 2**trial.times_busy, _MOST_BUSY_SECONDS)
        trial.times_busy += 1
        self._busy.append(trial)

    def _on_refused(self, trial: Trial, message: str) -> None:
        """Raises:
        WorkerRefused: no worker on such a machine may take part.
        """
        raise WorkerRefused(f"a worker cannot take part in this sweep: {message}")

    def _finish(self, trial: Trial, run: RunFolder) -> None:
        self._over["finished" if self.ledger.finish(trial, run) else "failed"] += 1

    def _fail(self, trial: Trial, message: str) -> None:
        self.ledger.fail(trial, message)
        self._over["failed"] += 1

    def _look(self) -> None:
        for sentence in self.executor.news():
            self.display.message(sentence)
        slots = {}
        for trial in self._running.values():
            text = f"{trial.label}: starting"
            known = len(trial.reported)
            watch = self.ledger.see(trial)
            if watch is not None:
                if len(trial.reported) > known:
                    self.observe(trial)
                text = f"{trial.label}: {watch.sentence()}"
            trial.place = self.executor.place(trial.number)
            slots[trial.place] = text
        for trial in self._busy:
            held = self.folder.claim(trial.run_stem)
            slots[f"trial {trial.number}"] = f"{trial.label}: another process is at work on it (it holds {held})"
        left = self._seconds_left()
        self.display.update(SweepState(slots, self._over["finished"], self._over["failed"], self._total, left))

    def _seconds_left(self) -> float | None:
        if self._total is None:
            return None
        elapsed = [trial.seconds for trial in self._running.values()]
        waiting = self._total - sum(self._over.values()) - len(elapsed)
        return self._time_left.seconds(elapsed, waiting, self.executor.capacity())
