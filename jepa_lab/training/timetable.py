"""Which steps of a run are logged, saved and evaluated: a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timetable:
    """Steps count from 1; step 0 is the untrained model.

    Attributes:
        steps_per_epoch: full batches in an epoch.
    """

    epochs: int
    steps_per_epoch: int
    evaluate_every_epochs: int
    log_every_steps: int
    checkpoint_every_steps: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def evaluate_every_steps(self) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every_epochs * self.steps_per_epoch

    def epoch(self, step: int) -> float:
        """Passes over the training images after a step."""
        return step / self.steps_per_epoch

    def evaluates(self, step: int) -> bool:
        """Whether the model is evaluated after a step: at probe epochs, and always at the end."""
        return step % self.evaluate_every_steps == 0 or step == self.total_steps

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows a step: it does wherever the model is evaluated."""
        return step % self.checkpoint_every_steps == 0 or self.evaluates(step)

    def logs(self, step: int) -> bool:
        """Whether a row of metrics follows a step: no checkpoint is without one."""
        return step % self.log_every_steps == 0 or self.saves(step)
