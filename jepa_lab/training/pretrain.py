"""The pretraining loop."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from jepa_lab.contracts import is_first
from jepa_lab.data.augmentations.base import Augmentation, require_augmented, require_draws
from jepa_lab.data.order import Batch, Batches, BatchPosition
from jepa_lab.data.resident import channel_record, normalize, to_float
from jepa_lab.errors import RunPruned, RunStopped
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.sampling import MaskSampler
from jepa_lab.models.drop_path import DropPath
from jepa_lab.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    RunState,
    check_tensors,
    optimizer_tensors,
    restore_optimizer,
)
from jepa_lab.training.finite import AcceptedLoss
from jepa_lab.training.pace import Pace
from jepa_lab.training.phases import CHECKPOINTS, FIRST_EVALUATION, FIRST_STEP, PROBE_EPOCHS, TRAINING, PhaseSeconds
from jepa_lab.training.progress import LoggedNumbers, PlainDisplay, ProgressDisplay, TrainingPosition
from jepa_lab.training.settings import TrainingSettings
from jepa_lab.training.step import StepStatistics, TrainingStep
from jepa_lab.training.stopwatch import Stopwatch
from jepa_lab.training.team import Team

logger = logging.getLogger(__name__)


class RunCollapsed(RunStopped):
    """The features collapsed, and the run was asked to end then."""


@dataclass(frozen=True)
class Evaluation:
    """What the evaluation at a probe epoch found.

    Attributes:
        metrics: flat names and values, for metrics.jsonl; `validation/loss` is among them.
        online_probe: validation accuracy of the cheap probe, or None without labels.
        warning: a sentence when the features look as if they stopped depending on the image.
        collapsed: whether that has persisted.
    """

    metrics: dict[str, float]
    online_probe: float | None
    warning: str | None
    collapsed: bool


class Evaluator(Protocol):
    """Measures the model at a probe epoch, and remembers what it saw from checkpoint to checkpoint."""

    @property
    def collapsed(self) -> bool:
        """Whether the features have been judged collapsed, now or before."""

    def evaluate(self) -> Evaluation:
        """Measure the model as it is now.

        Raises:
            RunStopped: its features are not finite.
        """

    def state(self) -> dict[str, Any]:
        """Its memory, as JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's memory."""


class MetricsSink(Protocol):
    """Where rows of metrics go: `MetricsWriter`, or nowhere in a process that follows."""

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all rows."""

    def append(self, step: int, epoch: float, metrics: Mapping[str, float | None]) -> None:
        """Write one row."""

    def sync(self) -> int:
        """Make the rows survive a power cut, and return the cursor behind the last one, in bytes."""


@dataclass
class Pretraining:
    """A pretraining run: what it works on, and what it reports to.

    Where a team of processes trains, each has one of these, with its rows of every batch. All draw the masks and the
    augmentation of the whole batch from the same generators, so that the run is that of one process to rounding; the
    leader alone evaluates, and alone writes.

    Attributes:
        mean, std: [C] of pixels in [0, 1], on the device.
        augmentation_generator, mask_generator: on the device; the data order has its own, in `batches`.
        drop_path: decides for the whole batch, on the device; None where nothing is dropped.
        evaluation: measures the model at a probe epoch.
        batches: give this process's rows.
        config: resolved YAML. run_uid: of `run.json`. stop: asked between two steps whether the run shall stop.
        stop_file: where it exists, the run ends at its next probe epoch.
        team: the processes that train together.
    """

    step: TrainingStep
    settings: TrainingSettings
    batches: Batches
    augmentation: Augmentation
    sampler: MaskSampler
    mean: Tensor
    std: Tensor
    augmentation_generator: torch.Generator
    mask_generator: torch.Generator
    drop_path: DropPath | None
    evaluation: Evaluator
    evaluate_every_epochs: int
    checkpoints: CheckpointStore
    metrics: MetricsSink
    seed: int
    config_digest: str
    config: str
    run_uid: str
    stop: StopSignals
    stop_file: Path
    team: Team

    def __post_init__(self) -> None:
        self.display: ProgressDisplay = PlainDisplay()
        self.pace = Pace(self.total_steps, self.evaluate_every_epochs * self.batches.steps_per_epoch)
        self.steps_taken = 0
        self._saved_step: int | None = None
        self._evaluated = False
        self.best_online_probe: float | None = None
        self.best_step: int | None = None
        self.stopwatch = Stopwatch()
        self.phases = PhaseSeconds()
        self._loss = AcceptedLoss(self.mean.device)
        self._skipped = torch.zeros((), device=self.mean.device)
        self._logged_step = 0
        self._logged_seconds = 0.0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.settings.epochs * self.batches.steps_per_epoch

    def run(self) -> None:
        """Train from the present state to the last step.

        Raises:
            RunStopped: non-finite numbers, a collapse that was asked to end the run, or a full disk.
            StopRequested: by a signal; the state is saved.
        """
        self.display.step(self._position(self.steps_taken))
        with self.stop.held():
            with self.team.reporting(self.stop):
                self._begin()
            self._train()

    def _begin(self) -> None:
        """Measure and save the untrained model, or what a run that was stopped still owes."""
        if self._evaluated:
            self._stop_if_collapsed(self.steps_taken, self.evaluation.collapsed, "so it was found before")
            return
        self.display.phase("evaluating the encoder before training")
        evaluation = self._evaluate(self.steps_taken)
        self._checkpoint(self.steps_taken, self.batches.position())
        self._stop_if_collapsed(self.steps_taken, evaluation.collapsed, evaluation.warning)

    def _train(self) -> None:
        before = self.stopwatch.seconds()
        self._logged_step, self._logged_seconds = self.steps_taken, before
        self.display.phase("compiling the training step" if self.step.compute.compile else "first step")
        self.stopwatch.start()
        for step in range(self.steps_taken + 1, self.total_steps + 1):
            batch = self._next_batch(step)  # this process's rows: [B / processes, C, H, W] uint8
            with self.team.computing():
                masks = self.sampler.sample(
                    self.settings.batch_size, self.mask_generator, compiled=self.step.compute.compile
                )
                augmented = normalize(self._augmented(batch), self.mean, self.std)
                drop_path = None if self.drop_path is None else self.drop_path.draw(self.settings.batch_size)
                statistics = self.step(augmented, masks, step, drop_path)
            if FIRST_STEP not in self.phases:
                now = self.stopwatch.seconds()
                self.phases.add(FIRST_STEP, now - before)
                before = now
            with self.team.reporting(self.stop):
                self._after_step(step, statistics, masks)
        self._stop_if_asked(self.total_steps, self.batches.position())
        self.stopwatch.stop()
        self.phases.add(TRAINING, self.stopwatch.seconds() - before)

    def _next_batch(self, step: int) -> Batch:
        """The batch of a step that all processes can take, unless one of them has been asked to stop."""
        position, batch = self.batches.position(), None
        with self.team.reporting(self.stop):
            try:
                # Files may hang for ever: a signal ends the waiting, and the run is saved as it was before.
                with self.stop.released():
                    batch = self.batches.next()
            except StopRequested:
                pass  # it is in `received`, and the other processes have to hear of it
            except RunStopped:
                # A signal to a whole group of processes ends those that read images, too: the run was asked to stop.
                if self.stop.received is None:
                    raise
        self._stop_if_asked(step - 1, position)
        assert batch is not None, "a signal has stopped the run"
        return batch

    def _augmented(self, batch: Batch) -> Tensor:
        """This process's images, changed as they would be among the whole batch."""
        batch_size = self.settings.batch_size
        draws = self.augmentation.draw(batch_size, self.augmentation_generator)
        first = is_first(self.augmentation, "apply")
        if first:
            require_draws(self.augmentation, draws, batch_size)
        rows = self.team.rows(batch_size)
        augmented = self.augmentation.apply(to_float(batch.images), batch.sizes, tuple(draw[rows] for draw in draws))
        if first:
            require_augmented(self.augmentation, augmented, batch.images)
        return augmented

    def _after_step(self, step: int, statistics: StepStatistics, masks: Masks) -> None:
        self.steps_taken = step
        self.pace.stepped(step, self.stopwatch.seconds())
        self.display.step(self._position(step))
        self._loss.add(statistics.loss, statistics.refused)
        self._skipped += statistics.refused
        last = step == self.total_steps
        evaluates = self._is_probe_epoch(step)
        saves = step % self.settings.checkpoint_every_steps == 0 or last or evaluates
        if step % self.settings.log_every_steps == 0 or saves:
            self._stop_if_not_finite(step)
            self._log(step, statistics, masks)
        if saves:
            self.stopwatch.stop()
            self.display.pause("evaluating" if evaluates else "saving")
            evaluation = self._evaluate(step) if evaluates else None
            self._checkpoint(step, self.batches.position())
            if evaluation is not None:
                self._stop_if_collapsed(step, evaluation.collapsed, evaluation.warning)
                self._stop_if_given_up(step)
            self.stopwatch.start()

    def _stop_if_asked(self, step: int, position: BatchPosition) -> None:
        """Between two steps: save and leave, if a signal has come to any of the processes.

        Args:
            position: of the data order after `step`.
        """
        asked = self.team.meet(self.stop)
        if asked is None:
            return
        with self.team.reporting(self.stop):
            self._stop_if_not_finite(step)
            self.stopwatch.stop()
            if self._saved_step != step:
                self._checkpoint(step, position)
            raise StopRequested(asked)

    def _is_probe_epoch(self, step: int) -> bool:
        epoch, within = divmod(step, self.batches.steps_per_epoch)
        return within == 0 and (epoch % self.evaluate_every_epochs == 0 or epoch == self.settings.epochs)

    def _position(self, step: int) -> TrainingPosition:
        return TrainingPosition(step, self.total_steps, self.batches.steps_per_epoch, self.pace.seconds_left())

    def _epoch(self, step: int) -> float:
        return step / self.batches.steps_per_epoch

    def _stop_if_not_finite(self, step: int) -> None:
        """Read the gate's flag; the weights are still those before the first bad step."""
        stopped_at = int(self.step.gate.stopped_at)
        if not stopped_at:
            return
        raise RunStopped(
            f"loss or gradients were not finite {self._moment(stopped_at)}; no weight was changed by it. "
            f"{self._last_good()}. Lower optimizer.learning_rate, set training.gradient_clip_norm, "
            "or use training.precision=fp32"
        )

    def _moment(self, step: int) -> str:
        return f"at step {step} (learning rate {self.step.schedules.learning_rate(max(step, 1)):.3g})"

    def _last_good(self) -> str:
        steps = self.checkpoints.steps()
        return f"Last good checkpoint: {self.checkpoints.path(steps[-1]) if steps else 'none was written yet'}"

    def _stop_if_collapsed(self, step: int, collapsed: bool, reason: str | None) -> None:
        if collapsed and self.settings.stop_on_collapse:
            raise RunCollapsed(
                f"the features collapsed by step {step} (epoch {self._epoch(step):.1f}): {reason}; "
                "the run ends because training.stop_on_collapse is on: "
                "lower optimizer.learning_rate, or let ema_momentum start higher"
            )

    def _stop_if_given_up(self, step: int) -> None:
        """At a probe epoch: leave, if the search that the run belongs to has given it up."""
        if step < self.total_steps and self.team.from_leader(self.stop_file.exists, self.stop):
            moment = f"step {step} (epoch {self._epoch(step):.1f})"
            raise RunPruned(f"ended at {moment}, because {self.stop_file} asks for it")

    def _log(self, step: int, statistics: StepStatistics, masks: Masks) -> None:
        """Write a row of metrics; the one place where the host waits for the device."""
        schedules = self.step.schedules
        self.step.compute.synchronize()
        seconds = self.stopwatch.seconds()
        images = (step - self._logged_step) * self.settings.batch_size
        speed = images / max(seconds - self._logged_seconds, 1e-9)
        loss = self._loss.mean()
        metrics = {
            "train/loss": loss,
            "train/encoder_gradient_norm": statistics.encoder_gradient_norm.item(),
            "train/predictor_gradient_norm": statistics.predictor_gradient_norm.item(),
            "train/context_patches": masks.context_counts().float().mean().item(),
            "train/target_patches": masks.target_counts().float().mean().item(),
            "train/skipped_steps": self._skipped.item(),
            "train/learning_rate": schedules.learning_rate(step),
            "train/weight_decay": schedules.weight_decay(step),
            "train/ema_momentum": schedules.ema_momentum(step),
            "train/images_per_second": speed,
            "train/peak_memory_mib": self.step.compute.peak_memory_bytes() / 2**20,
            **{f"train/{name}": value.item() for name, value in statistics.terms.items()},  # of this step alone
        }
        self.metrics.append(step, self._epoch(step), metrics)
        self.display.logged(LoggedNumbers(loss, metrics["train/learning_rate"], speed))
        self._loss.reset()
        self._logged_step, self._logged_seconds = step, seconds

    def _evaluate(self, step: int) -> Evaluation:
        """Evaluate, which may take minutes: a signal ends it, and the run that is resumed does it again."""
        memory, began = self.evaluation.state(), time.monotonic()
        try:
            evaluation = self.team.from_leader(lambda: self._measure(step), self.stop)
        except StopRequested:
            self.evaluation.restore(memory)
            if step > 0:  # before the first step there is nothing to lose
                self._checkpoint(step, self.batches.position(), evaluated=False)
            raise
        self.pace.evaluated(time.monotonic() - began)
        self.phases.add(FIRST_EVALUATION if step == 0 else PROBE_EPOCHS, time.monotonic() - began)
        self._record_evaluation(step, evaluation)
        return evaluation

    def _measure(self, step: int) -> Evaluation:
        try:
            with self.stop.released():
                evaluation = self.evaluation.evaluate()
        except RunStopped as error:
            raise RunStopped(f"{self._moment(step)} {error}. {self._last_good()}") from error
        if not math.isfinite(evaluation.metrics["validation/loss"]):
            raise RunStopped(
                f"{self._moment(step)} the validation loss is not finite; lower optimizer.learning_rate, or use "
                f"training.precision=fp32. {self._last_good()}"
            )
        return evaluation

    def _record_evaluation(self, step: int, evaluation: Evaluation) -> None:
        self.metrics.append(step, self._epoch(step), evaluation.metrics)
        accuracy = evaluation.online_probe
        if accuracy is not None and (self.best_online_probe is None or accuracy > self.best_online_probe):
            self.best_online_probe, self.best_step = accuracy, step
        if evaluation.warning is not None:
            logger.warning("epoch %.1f: %s", self._epoch(step), evaluation.warning)
            self.display.message(f"warning: epoch {self._epoch(step):.1f}: {evaluation.warning}")

    def _state_tensors(self, position: BatchPosition) -> dict[str, Tensor]:
        """Everything that a checkpoint holds beside model and optimizer, as tensors."""
        dropping = {} if self.drop_path is None else {"drop_path_generator": self.drop_path.generator.get_state()}
        return {
            "order_generator": position.generator_state,
            "augmentation_generator": self.augmentation_generator.get_state(),
            "mask_generator": self.mask_generator.get_state(),
            **dropping,
            "skipped": self._skipped,
            **self._loss.state(),
            **{f"gate/{name}": tensor for name, tensor in self.step.gate.state().items()},
        }

    def _checkpoint(self, step: int, position: BatchPosition, evaluated: bool = True) -> Path:
        states = self._state_tensors(position)
        run = RunState(
            step=step,
            epoch=position.epoch,
            batch=position.batch,
            metrics_cursor=self.metrics.sync(),
            metrics_sha256=self.metrics.sha256,
            num_threads=torch.get_num_threads(),
            device=self.step.compute.device.type,
            precision=self.step.compute.precision,
            seed=self.seed,
            config_digest=self.config_digest,
            config=self.config,
            monitor=self.evaluation.state(),
            evaluated=evaluated,
            best_online_probe=self.best_online_probe,
            best_step=self.best_step,
            seconds=self.stopwatch.seconds(),
            run_uid=self.run_uid,
        )
        model = self.step.model
        optimizer = optimizer_tensors(model, self.step.optimizer)
        channels = {key: json.dumps(values) for key, values in channel_record(self.mean, self.std).items()}
        self._saved_step = step
        with self.phases.of(CHECKPOINTS):
            return self.checkpoints.save(Checkpoint(model.state_dict(), optimizer, states, run, channels))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: the next step is the one that an uninterrupted run would take.

        Raises:
            RunFolderError: its tensors are not those of this run.
        """
        check_tensors(checkpoint, self.step.model, self._state_tensors(self.batches.position()))
        self.step.model.load_state_dict(checkpoint.model)
        restore_optimizer(self.step.model, self.step.optimizer, checkpoint.optimizer)
        state, run = checkpoint.state, checkpoint.run
        self.augmentation_generator.set_state(state["augmentation_generator"])
        self.mask_generator.set_state(state["mask_generator"])
        if self.drop_path is not None:
            self.drop_path.generator.set_state(state["drop_path_generator"])
        self.step.gate.restore({key.removeprefix("gate/"): value for key, value in state.items()})
        self._loss.restore(state)
        self._skipped = state["skipped"].to(self.mean.device)
        self.batches.restore(BatchPosition(run.epoch, run.batch, state["order_generator"]))
        self.evaluation.restore(run.monitor)
        self.steps_taken, self._evaluated = run.step, run.evaluated
        self.best_online_probe, self.best_step = run.best_online_probe, run.best_step
        self.stopwatch = Stopwatch(run.seconds)
