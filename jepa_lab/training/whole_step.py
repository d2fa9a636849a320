"""One whole training step, from images as they are stored to the sums of the log."""

from __future__ import annotations

from dataclasses import dataclass

from jepa_lab.data.order import Batch
from jepa_lab.maskers.base import Masks
from jepa_lab.training.batch_maker import BatchMaker
from jepa_lab.training.finite import StepSums
from jepa_lab.training.mask_source import DrawnMasks
from jepa_lab.training.step import StepStatistics, TrainingStep


@dataclass(frozen=True)
class StepOutcome:
    """What a step leaves for the log, on the device. A captured step overwrites it with the next one."""

    statistics: StepStatistics
    masks: Masks


@dataclass
class WholeStep:
    """Augment, draw masks, train, and add up: all that the device does between two looks of the host.

    Attributes:
        sums: of the steps since the last row of metrics.
    """

    batches: BatchMaker
    step: TrainingStep
    sums: StepSums

    @property
    def captured(self) -> bool:
        """Whether steps are replayed as a graph."""
        return False

    def __call__(self, batch: Batch, number: int) -> StepOutcome:
        """Take a step.

        Args:
            batch: of `BatchMaker.next_images`.
            number: of the step, from 1.
        """
        return self.on_device(batch, self.prepared(number))

    def prepared(self, number: int) -> DrawnMasks:
        """Set the numbers of a step, and get its masks."""
        self.step.numbers.set(number)
        with self.step.team.reporting():
            return self.batches.masks.next()

    def on_device(self, batch: Batch, drawn: DrawnMasks) -> StepOutcome:
        """The step whose numbers were set: it reads and changes tensors alone, always the same ones."""
        team = self.step.team
        with team.reporting():
            made = self.batches.make(batch)
        with team.computing():
            statistics = self.step(made.images, drawn.masks, drawn.packer, made.drop_path)
        self.sums.add(statistics.loss, statistics.refused)
        return StepOutcome(statistics, drawn.masks)
