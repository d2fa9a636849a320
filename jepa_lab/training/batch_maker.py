"""What a step trains on: images in their order, augmented, masks and drop path; all of its randomness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.contracts import is_first
from jepa_lab.data.augmentations.base import Augmentation, require_augmented, require_draws
from jepa_lab.data.order import Batch, Batches, BatchPosition
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.models.drop_path import DropPath
from jepa_lab.training.mask_source import MaskSource


@dataclass(frozen=True)
class TrainingBatch:
    """What one step takes beside masks.

    Attributes:
        images: this process's rows, [B / processes, C, H, W] float, augmented, channel-normalised.
        drop_path: [B, depth, 2] of all B images, or None where nothing is dropped.
    """

    images: Tensor
    drop_path: Tensor | None


@dataclass
class BatchMaker:
    """Makes the batches of a run; its state is that of four generators and the place in the data order.

    Where several processes train, each has one, with its rows of every batch. All draw the masks and the augmentation
    of the whole batch from the same generators, so that the run is that of one process to rounding.

    Attributes:
        order: gives this process's images.
        masks: gives the masks of all B images.
        mean, std: [C] of pixels in [0, 1], on the device.
        augmentation_generator: on the device; the data order and the masks have their own.
        drop_path: decides for the whole batch, on the device; None where nothing is dropped.
        batch_size: B, of all processes together. rows: those of this process.
    """

    order: Batches
    augmentation: Augmentation
    masks: MaskSource
    drop_path: DropPath | None
    mean: Tensor
    std: Tensor
    augmentation_generator: torch.Generator
    batch_size: int
    rows: slice

    def next_images(self) -> Batch:
        """The next images in the order, as they are stored; may wait for files.

        Raises:
            RunStopped: the images cannot be read any more.
        """
        return self.order.next()

    def make(self, batch: Batch) -> TrainingBatch:
        """Augment and normalise images, and decide what is dropped: what the generators say next."""
        images = normalize(self._augmented(batch), self.mean, self.std)
        return TrainingBatch(images, None if self.drop_path is None else self.drop_path.draw(self.batch_size))

    def _augmented(self, batch: Batch) -> Tensor:
        """This process's images, changed as they would be among the whole batch."""
        draws = self.augmentation.draw(self.batch_size, self.augmentation_generator)
        first = is_first(self.augmentation, "apply")
        if first:
            require_draws(self.augmentation, draws, self.batch_size)
        own = tuple(draw[self.rows] for draw in draws)
        augmented = self.augmentation.apply(to_float(batch.images), batch.sizes, own)
        if first:
            require_augmented(self.augmentation, augmented, batch.images)
        return augmented

    def generators(self) -> list[torch.Generator]:
        """Those on the device, which `make` draws from."""
        dropping = [] if self.drop_path is None else [self.drop_path.generator]
        return [self.augmentation_generator, *dropping]

    def position(self) -> BatchPosition:
        """Where the order stands: after the images that were given out."""
        return self.order.position()

    def state(self, position: BatchPosition) -> dict[str, Tensor]:
        """The generators' states, for a checkpoint.

        Args:
            position: of the order, which may be that before images that are not trained on.
        """
        dropping = {} if self.drop_path is None else {"drop_path_generator": self.drop_path.generator.get_state()}
        return {
            "order_generator": position.generator_state,
            "augmentation_generator": self.augmentation_generator.get_state(),
            "mask_generator": self.masks.state(),
            **dropping,
        }

    def restore(self, epoch: int, batch: int, state: dict[str, Tensor]) -> None:
        """Make the batches that followed a checkpoint; see `state` and `BatchPosition`."""
        self.augmentation_generator.set_state(state["augmentation_generator"])
        self.masks.restore(state["mask_generator"])
        if self.drop_path is not None:
            self.drop_path.generator.set_state(state["drop_path_generator"])
        self.order.restore(BatchPosition(epoch, batch, state["order_generator"]))
