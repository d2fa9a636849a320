"""What a run says while it trains: rows of metrics, the display, the time left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from jepa_lab.training.compiling import kept_in
from jepa_lab.training.devices import Compute
from jepa_lab.training.evaluator import Evaluation
from jepa_lab.training.finite import StepSums
from jepa_lab.training.pace import Pace
from jepa_lab.training.phases import FIRST_STEP, PhaseSeconds
from jepa_lab.training.progress import LoggedNumbers, ProgressDisplay, TrainingPosition, clock
from jepa_lab.training.step import TrainingStep
from jepa_lab.training.timetable import Timetable
from jepa_lab.training.whole_step import StepOutcome

logger = logging.getLogger(__name__)

_STEPS_THAT_TELL = 20
"""Steps of this process after which the time left is told once."""
_WORTH_TELLING_SECONDS = 10.0


class MetricsSink(Protocol):
    """Where rows of metrics go: `MetricsWriter`, or nowhere in a process that follows."""

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all rows."""

    def append(self, step: int, epoch: float, metrics: Mapping[str, float | None]) -> None:
        """Write one row."""

    def sync(self) -> int:
        """Make the rows survive a power cut, and return the cursor after the last one, in bytes."""


@dataclass
class TrainingLog:
    """Tells how training goes. All but `write_row` uses what the host knows: the device is not asked.

    Attributes:
        batch_size: of all processes together.
        sums: of the steps since the last row, on the device.
        phases: seconds of the phases of this command.
    """

    timetable: Timetable
    batch_size: int
    metrics: MetricsSink
    display: ProgressDisplay
    sums: StepSums
    phases: PhaseSeconds

    def __post_init__(self) -> None:
        self._pace = Pace(self.timetable.total_steps, self.timetable.evaluate_every_steps)
        self._row_step, self._row_seconds = 0, 0.0
        self._skipped = 0
        self._taken = 0

    def begin(self, step: int, seconds: float) -> None:
        """Training starts after `step`, when `seconds` have been spent on steps before."""
        self._row_step, self._row_seconds = step, seconds
        self._skipped = self.sums.skipped_steps()

    def first_step(self, seconds: float, compute: Compute) -> None:
        """The first step of this process took so long, with compiling where `compute` says so."""
        self.phases.add(FIRST_STEP, seconds)
        if compute.compile:
            folder = kept_in()
            kept = "" if folder is None else f"; what was compiled is kept in {folder} for the next start"
            text = f"compiled and took the first training step in {seconds:.1f} s{kept}"
            logger.info(text)
            self.display.message(text)

    def stepped(self, step: int, seconds: float) -> None:
        """A step was handed to the device.

        Args:
            seconds: spent on steps so far, without evaluations and checkpoints.
        """
        self._pace.stepped(step, seconds)
        self.show_position(step)
        self._taken += 1
        if self._taken == _STEPS_THAT_TELL:
            self._tell_time(step)

    def _tell_time(self, step: int) -> None:
        """Say how long the run will take, once a few steps tell."""
        left = self._pace.seconds_left()
        assert left is not None, "known from the second step on"
        text = f"expected time: {clock(left)} for the remaining {self.timetable.total_steps - step:,} steps"
        logger.info(text)
        if left >= _WORTH_TELLING_SECONDS:
            self.display.message(text)

    def show_position(self, step: int) -> None:
        """Move the display to a step."""
        timetable = self.timetable
        self.display.step(
            TrainingPosition(step, timetable.total_steps, timetable.steps_per_epoch, self._pace.seconds_left())
        )

    def write_row(self, step: int, taken: TrainingStep, outcome: StepOutcome, seconds: float) -> None:
        """Write a row of metrics, for which the host has waited for the device.

        Args:
            taken: what the step was taken with.
        """
        schedules, statistics, masks = taken.numbers.schedules, outcome.statistics, outcome.masks
        speed = (step - self._row_step) * self.batch_size / max(seconds - self._row_seconds, 1e-9)
        loss = self.sums.mean_loss()
        visible = taken.model.hierarchy.visible_target_shares(masks)
        metrics = {
            "train/loss": loss,
            "train/encoder_gradient_norm": statistics.encoder_gradient_norm.item(),
            "train/predictor_gradient_norm": statistics.predictor_gradient_norm.item(),
            "train/context_patches": masks.context.counts().float().mean().item(),
            "train/target_patches": masks.target.counts().float().mean().item(),
            **{f"train/{name}": share.item() for name, share in visible.items()},
            "train/skipped_steps": float(self.sums.skipped_steps()),
            "train/learning_rate": schedules.learning_rate(step),
            "train/weight_decay": schedules.weight_decay(step),
            "train/ema_momentum": schedules.ema_momentum(step),
            "train/images_per_second": speed,
            "train/peak_memory_mib": taken.compute.peak_memory_bytes() / 2**20,
            **{f"train/{name}": value.item() for name, value in statistics.terms.items()},  # of this step alone
        }
        self.metrics.append(step, self.timetable.epoch(step), metrics)
        self._tell_of_skipped(step, taken)
        self.display.logged(LoggedNumbers(loss, metrics["train/learning_rate"], speed))
        self.sums.begin_row()
        self._row_step, self._row_seconds = step, seconds

    def _tell_of_skipped(self, step: int, taken: TrainingStep) -> None:
        """Say how many batches were skipped since the last row; under fp16 some always are, so only the log does."""
        before, self._skipped = self._skipped, self.sums.skipped_steps()
        if self._skipped == before:
            return
        text = (
            f"skipped {self._skipped - before} of {step - self._row_step} batches since step {self._row_step}, because "
            f"loss or gradients were not finite ({self._skipped} in this run so far)"
        )
        if taken.gate.scaling:
            logger.info("%s; the loss scale is now %g", text, taken.gate.loss_scale.item())
        else:
            logger.warning(text)
            self.display.message(f"warning: {text}")

    def evaluated(self, step: int, evaluation: Evaluation, seconds: float) -> None:
        """Write what an evaluation found, which took `seconds`."""
        self._pace.evaluated(seconds)
        epoch = self.timetable.epoch(step)
        self.metrics.append(step, epoch, evaluation.metrics)
        if evaluation.warning is not None:
            logger.warning("epoch %.1f: %s", epoch, evaluation.warning)
            self.display.message(f"warning: epoch {epoch:.1f}: {evaluation.warning}")
