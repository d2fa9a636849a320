"""Drop path: in a training step each image skips some branches of some blocks, at random (stochastic depth)."""

from __future__ import annotations

import torch
from torch import Tensor


class DropPath:
    """Decides which branches the images of a batch skip.

    The decisions are tensors, drawn for the whole batch before its forward pass, like masks: the network itself has no
    randomness, so that parts of a batch, several processes, recomputed activations and a resumed run see the same.

    Args:
        rate: probability of skipping a branch of the last block; it rises linearly from 0 at the first.
        depth: blocks of the encoder, at least 2.
        generator: of this purpose alone.
    Source: Huang et al. 2016, arXiv:1603.09382, with the linear decay of survival of its sec. 4; kept branches are
    scaled up in training, as in Larsson et al. 2017, arXiv:1605.07648, instead of down in evaluation.
    """

    def __init__(self, rate: float, depth: int, generator: torch.Generator) -> None:
        self.generator = generator
        self.keep_probability = 1 - torch.linspace(0, rate, depth, device=generator.device)[:, None]  # [depth, 1]

    def draw(self, batch_size: int) -> Tensor:
        """The factor on each branch of each image: 0, or 1 / its probability of being kept.

        Returns:
            [B, depth, 2] float32; the attention's branch is first.
        """
        shape = (batch_size, len(self.keep_probability), 2)
        drawn = torch.rand(shape, generator=self.generator, device=self.generator.device)
        return (drawn < self.keep_probability) / self.keep_probability
