"""The pretraining loop: next batch, step, after the step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.data.order import Batch, BatchPosition
from jepa_lab.errors import RunPruned, RunStopped
from jepa_lab.interruption import StopRequested
from jepa_lab.monitors.collapse import REMEDY
from jepa_lab.training.checkpointer import Checkpointer
from jepa_lab.training.evaluator import Evaluation, Evaluator
from jepa_lab.training.phases import CHECKPOINTS, FIRST_EVALUATION, FIRST_STEP, PROBE_EPOCHS, TRAINING
from jepa_lab.training.team import Team
from jepa_lab.training.timetable import Timetable
from jepa_lab.training.training_log import TrainingLog
from jepa_lab.training.whole_step import StepOutcome, WholeStep


class RunCollapsed(RunStopped):
    """The features collapsed, and the run was asked to end then."""


@dataclass
class Pretraining:
    """A pretraining run: what it works on, and what it reports to.

    Where a team of processes trains, each has one of these; the leader alone evaluates, and alone writes.

    Attributes:
        evaluation: measures the model at a probe epoch.
        stop_file: where it exists, the run ends at its next probe epoch.
        stop_on_collapse: whether features that are judged collapsed end the run.
    """

    timetable: Timetable
    whole_step: WholeStep
    evaluation: Evaluator
    checkpointer: Checkpointer
    log: TrainingLog
    team: Team
    stop_file: Path
    stop_on_collapse: bool

    def __post_init__(self) -> None:
        self.state = self.checkpointer.state
        self.batches, self.step = self.whole_step.batches, self.whole_step.step

    def run(self) -> None:
        """Train from the present state to the last step.

        Raises:
            RunStopped: non-finite numbers, a collapse that was asked to end the run, or a full disk.
            StopRequested: by a signal; the state is saved.
        """
        self.log.show_position(self.state.step)
        with self.team.stop.held():
            with self.team.reporting():
                self._begin()
            self._train()

    def _begin(self) -> None:
        """Measure and save the untrained model, or what a run that was stopped still owes."""
        step = self.state.step
        if self.state.evaluated:
            self._stop_if_collapsed(step, self.evaluation.collapsed, f"{self.evaluation.warning}, as was found before")
            return
        self.log.display.phase("evaluating the encoder before training")
        evaluation = self._evaluate(step)
        self._save(step, self.batches.position())
        self._stop_if_collapsed(step, evaluation.collapsed, evaluation.warning)

    def _train(self) -> None:
        clock, before = self.state.clock, self.state.clock.seconds()
        self.log.begin(self.state.step, before)
        self.log.display.phase(self.step.compute.preparation)
        clock.start()
        for step in range(self.state.step + 1, self.timetable.total_steps + 1):
            batch = self._next_batch(step)
            outcome = self.whole_step(batch, step)
            if FIRST_STEP not in self.log.phases:
                now = clock.seconds()
                self.log.first_step(now - before, self.step.compute)
                before = now
            with self.team.reporting():
                self.after_step(step, outcome)
        self._stop_if_asked(self.timetable.total_steps, self.batches.position())
        clock.stop()
        self.log.phases.add(TRAINING, clock.seconds() - before)

    def _next_batch(self, step: int) -> Batch:
        """The images of a step that all processes can take, unless one of them has been asked to stop."""
        stop, position, batch = self.team.stop, self.batches.position(), None
        with self.team.reporting():
            try:
                # Files may hang for ever: a signal ends the waiting, and the run is saved as it was before.
                with stop.released():
                    batch = self.batches.next_images()
            except StopRequested:
                pass  # it is in `received`, and the other processes have to hear of it
            except RunStopped:
                # A signal to a whole group of processes ends those that read images, too: the run was asked to stop.
                if stop.received is None:
                    raise
        self._stop_if_asked(step - 1, position)
        assert batch is not None, "a signal has stopped the run"
        return batch

    def after_step(self, step: int, outcome: StepOutcome) -> None:
        """Count a step that was taken, and log, evaluate and save where it is due."""
        self.state.step = step
        self.log.stepped(step, self.state.clock.seconds())
        if self.timetable.logs(step):
            self._stop_if_not_finite(step)
            self.step.compute.synchronize()  # the one place where the host waits for the device
            self.log.write_row(step, self.step, outcome, self.state.clock.seconds())
        if self.timetable.saves(step):
            self.state.clock.stop()
            self._measure_and_save(step)
            self.state.clock.start()

    def _measure_and_save(self, step: int) -> None:
        evaluates = self.timetable.evaluates(step)
        self.log.display.pause("evaluating" if evaluates else "saving")
        evaluation = self._evaluate(step) if evaluates else None
        self._save(step, self.batches.position())
        if evaluation is not None:
            self._stop_if_collapsed(step, evaluation.collapsed, evaluation.warning)
            self._stop_if_given_up(step)

    def _evaluate(self, step: int) -> Evaluation:
        """Evaluate, which may take minutes: a signal ends it, and the run that is resumed does it again."""
        memory, began = self.evaluation.state(), time.monotonic()
        try:
            evaluation = self.team.from_leader(lambda: self._measure(step))
        except StopRequested:
            self.evaluation.restore(memory)
            if step > 0:  # before the first step there is nothing to lose
                self._save(step, self.batches.position(), evaluated=False)
            raise
        seconds = time.monotonic() - began
        self.log.phases.add(FIRST_EVALUATION if step == 0 else PROBE_EPOCHS, seconds)
        self.state.note_accuracy(evaluation.online_probe, step)
        self.log.evaluated(step, evaluation, seconds)
        return evaluation

    def _measure(self, step: int) -> Evaluation:
        try:
            with self.team.stop.released():
                evaluation = self.evaluation.evaluate()
        except RunStopped as error:
            raise RunStopped(f"{self._moment(step)} {error}. {self.checkpointer.last_good()}") from error
        loss = evaluation.metrics["validation/loss"]
        if loss is None or not math.isfinite(loss):
            raise RunStopped(
                f"{self._moment(step)} the validation loss is not finite; lower optimizer.learning_rate, or use "
                f"training.precision=fp32. {self.checkpointer.last_good()}"
            )
        return evaluation

    def _save(self, step: int, position: BatchPosition, *, evaluated: bool = True) -> None:
        with self.log.phases.of(CHECKPOINTS):
            self.checkpointer.save(step, position, evaluated=evaluated)

    def _stop_if_asked(self, step: int, position: BatchPosition) -> None:
        """Between two steps: save and leave, if a signal has come to any of the processes.

        Args:
            position: of the data order after `step`.
        """
        asked = self.team.meet()
        if asked is None:
            return
        with self.team.reporting():
            self._stop_if_not_finite(step)
            self.state.clock.stop()
            if self.state.saved_step != step:
                self._save(step, position)
            raise StopRequested(asked)

    def _stop_if_not_finite(self, step: int) -> None:
        """Read the gate's flag; the weights are still those before the first bad step."""
        gate = self.step.gate
        stopped_at = int(gate.stopped_at)
        if not stopped_at:
            return
        skipped = gate.max_skipped
        more = f" and at the {skipped} step(s) after it (at most {skipped} may be skipped)" if skipped else ""
        raise RunStopped(
            f"loss or gradients were not finite {self._moment(stopped_at)}{more}; no weight was changed by that. "
            f"{self.checkpointer.last_good()}. Lower optimizer.learning_rate, set training.gradient_clip_norm, "
            f"use training.precision=fp32, or raise training.max_skipped_batches (now {skipped})"
        )

    def _stop_if_collapsed(self, step: int, collapsed: bool, reason: str | None) -> None:
        if collapsed and self.stop_on_collapse:
            raise RunCollapsed(
                f"the features collapsed by step {step} (epoch {self.timetable.epoch(step):.1f}): {reason}; "
                f"the run ends because training.stop_on_collapse is on: {REMEDY}"
            )

    def _stop_if_given_up(self, step: int) -> None:
        """At a probe epoch: leave, if the search that the run belongs to has given it up."""
        if step < self.timetable.total_steps and self.team.from_leader(self.stop_file.exists):
            moment = f"step {step} (epoch {self.timetable.epoch(step):.1f})"
            raise RunPruned(f"ended at {moment}, because {self.stop_file} asks for it")

    def _moment(self, step: int) -> str:
        return f"at step {step} (learning rate {self.step.numbers.schedules.learning_rate(max(step, 1)):.3g})"
