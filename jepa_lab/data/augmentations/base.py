"""What an augmentation is: a random change of every image of a batch, on the images' device."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from jepa_lab.contracts import require, require_tensor
from jepa_lab.registry import Component, ComponentParams, Registry


class Augmentation(Component[int], ABC):
    """Changes each image of a batch by its own random draw.

    Args:
        params: the augmentation's own `Params`; `check` gets the image size.
        image_size: height and width of the result, in pixels.
    """

    def __init__(self, params: ComponentParams, image_size: int) -> None:
        self.params = params
        self.image_size = image_size

    @abstractmethod
    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All the randomness of a batch, whatever its images and their sizes.

        Processes that share a batch draw for all of it, and each applies the rows of its own images.

        Args:
            generator: on the images' device; the only source of randomness.
        Returns:
            Tensors [B, ...], a row an image; none where nothing is random.
        """

    @abstractmethod
    def apply(self, images: Tensor, sizes: Tensor | None, draws: tuple[Tensor, ...]) -> Tensor:
        """Change each image by its row of the draws.

        Args:
            images: [B, C, H, W] float32 in [0, 1]: whole pictures, all resized to the same height and width.
            sizes: height and width of each picture in its file, [B, 2] int32, by which its shape can be restored
                (`crop.in_stored_pixels`); None where the images have the shape that they are stored in.
            draws: of `draw`, as many rows as images.
        Returns:
            [B, C, image_size, image_size] float32 in [0, 1].
        """

    def __call__(self, images: Tensor, sizes: Tensor | None, generator: torch.Generator) -> Tensor:
        """Augment a batch: `draw`, then `apply`."""
        return self.apply(images, sizes, self.draw(len(images), generator))


def require_draws(augmentation: Augmentation, draws: object, batch_size: int) -> None:
    """Refuse what `draw` returned, unless it is tensors with a row for each image.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    fits = isinstance(draws, tuple) and all(
        isinstance(each, Tensor) and each.shape[:1] == (batch_size,) for each in draws
    )
    require(augmentation, "draw", fits, draws, f"a tuple of tensors [B, ...] of B = {batch_size} rows")


def require_augmented(augmentation: Augmentation, augmented: object, images: Tensor) -> None:
    """Refuse what `apply` returned, unless it is images of the size that was asked for.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    side = augmentation.image_size
    shape, letters = (*images.shape[:2], side, side), "[B, C, image_size, image_size]"
    require_tensor(augmentation, "apply", augmented, shape, letters, dtypes=[torch.float32], device=images.device)


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", Augmentation)
