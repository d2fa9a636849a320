"""Collects everything that the next step depends on into a checkpoint, and puts it back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jepa_lab.data.order import BatchPosition
from jepa_lab.data.resident import channel_record
from jepa_lab.training.batch_maker import BatchMaker
from jepa_lab.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    RunState,
    check_tensors,
    optimizer_tensors,
    restore_optimizer,
)
from jepa_lab.training.evaluator import Evaluator
from jepa_lab.training.finite import StepSums
from jepa_lab.training.step import TrainingStep
from jepa_lab.training.stopwatch import Stopwatch
from jepa_lab.training.training_log import MetricsSink


@dataclass(frozen=True)
class RunIdentity:
    """Which run a checkpoint belongs to.

    Attributes:
        config: resolved YAML. run_uid: of `run.json`.
    """

    seed: int
    config_digest: str
    config: str
    run_uid: str


@dataclass
class TrainingState:
    """How far a run has come, beside its tensors.

    Attributes:
        step: optimizer steps taken. saved_step: of the newest checkpoint that this process wrote.
        evaluated: whether the evaluation that belongs to `step` has been made.
        best_online_probe: highest validation accuracy so far, and the first step that reached it.
        clock: time spent training.
    """

    step: int = 0
    saved_step: int | None = None
    evaluated: bool = False
    best_online_probe: float | None = None
    best_step: int | None = None
    clock: Stopwatch = field(default_factory=Stopwatch)

    def note_accuracy(self, accuracy: float | None, step: int) -> None:
        """Remember the online probe's accuracy if it is the highest."""
        if accuracy is not None and (self.best_online_probe is None or accuracy > self.best_online_probe):
            self.best_online_probe, self.best_step = accuracy, step


@dataclass
class Checkpointer:
    """Saves and restores a run.

    Attributes:
        store: where checkpoints are. step: model, optimizer and gate. sums: since the last row of metrics.
    """

    store: CheckpointStore
    identity: RunIdentity
    step: TrainingStep
    batches: BatchMaker
    sums: StepSums
    evaluation: Evaluator
    metrics: MetricsSink
    state: TrainingState = field(default_factory=TrainingState)

    def save(self, step: int, position: BatchPosition, *, evaluated: bool = True) -> None:
        """Write the checkpoint of a step.

        Args:
            position: of the data order after that step.
            evaluated: False where the evaluation that belongs to the step is still owed.
        Raises:
            RunStopped: the disk is full; earlier checkpoints are untouched.
        """
        model, state = self.step.model, self.state
        run = RunState(
            step=step,
            epoch=position.epoch,
            batch=position.batch,
            metrics_cursor=self.metrics.sync(),
            metrics_sha256=self.metrics.sha256,
            num_threads=torch.get_num_threads(),
            device=self.step.compute.device.type,
            precision=self.step.compute.precision,
            seed=self.identity.seed,
            config_digest=self.identity.config_digest,
            config=self.identity.config,
            monitor=self.evaluation.state(),
            evaluated=evaluated,
            best_online_probe=state.best_online_probe,
            best_step=state.best_step,
            seconds=state.clock.seconds(),
            run_uid=self.identity.run_uid,
            compiled=self.step.compute.compile,
        )
        channels = channel_record(self.batches.mean, self.batches.std)
        metadata = {key: json.dumps(values) for key, values in channels.items()}
        optimizer = optimizer_tensors(model, self.step.optimizer)
        state.saved_step = step
        self.store.save(Checkpoint(model.state_dict(), optimizer, self._tensors(position), run, metadata))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint: the next step is the one that an uninterrupted run would take.

        Raises:
            RunFolderError: its tensors are not those of this run.
        """
        check_tensors(checkpoint, self.step.model, self._tensors(self.batches.position()))
        self.step.model.load_state_dict(checkpoint.model)
        restore_optimizer(self.step.model, self.step.optimizer, checkpoint.optimizer)
        tensors, run = checkpoint.state, checkpoint.run
        self.step.gate.restore({key.removeprefix("gate/"): value for key, value in tensors.items()})
        self.sums.restore(tensors)
        self.batches.restore(run.epoch, run.batch, tensors)
        self.evaluation.restore(run.monitor)
        state = self.state
        state.step, state.evaluated = run.step, run.evaluated
        state.best_online_probe, state.best_step = run.best_online_probe, run.best_step
        state.clock = Stopwatch(run.seconds)

    def last_good(self) -> str:
        """A sentence that says which checkpoint a run can be resumed from."""
        steps = self.store.steps()
        return f"Last good checkpoint: {self.store.path(steps[-1]) if steps else 'none was written yet'}"

    def _tensors(self, position: BatchPosition) -> dict[str, Tensor]:
        """Everything that a checkpoint holds beside model and optimizer, as tensors."""
        gate = {f"gate/{name}": tensor for name, tensor in self.step.gate.state().items()}
        return {**self.batches.state(position), **self.sums.state(), **gate}
