"""What downsampling is: features of cells, each made of 2 x 2 finer ones of which some may be missing."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from jepa_lab.registry import Component, ComponentParams, Registry


class Downsampling(Component[int], nn.Module, ABC):
    """Maps the features of four fine cells to one coarse one.

    Args:
        params: its own `Params`; `check` gets D.
        embed_dim: D of the features.
    """

    def __init__(self, params: ComponentParams, embed_dim: int) -> None:
        super().__init__()
        self.params = params
        self.embed_dim = embed_dim

    def flops(self) -> float:
        """Operations of the matrix products of a forward pass for one coarse cell; a multiply-add counts as 2."""
        return 0.0

    @abstractmethod
    def forward(self, children: Tensor, seen: Tensor) -> Tensor:
        """Features of coarse cells.

        Args:
            children: [S, N', 4, D] features of the fine cells in each: top left, top right, bottom left, bottom right.
            seen: [S, N', 4] bool; False where a fine cell is hidden or lies beyond the edge. What `children` holds
                there must not matter.
        Returns:
            [S, N', D]; without meaning where no fine cell is seen, but finite.
        """


DOWNSAMPLINGS: Registry[Downsampling] = Registry("downsampling", Downsampling)
