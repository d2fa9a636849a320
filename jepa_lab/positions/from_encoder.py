"""The encoder's own positions, which reach the predictor through the projection of the encoder's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_lab.errors import Problem
from jepa_lab.grid import Grid
from jepa_lab.positions.base import POSITIONS, PositionEmbedding, PositionInputs, add_positions
from jepa_lab.positions.learned import take_rows
from jepa_lab.registry import ComponentParams


@POSITIONS.register(
    "from_encoder",
    summary="For the predictor alone: the encoder's positions, through the projection that its features pass.",
    source="the Nexus guide to I-JEPA (predictor)",
)
class PositionFromEncoder(PositionEmbedding):
    """The predictor has no positions of its own.

    Before the projection W, b to the predictor's width, each feature of the context gets the position p of its patch
    once more, W (feature + p) + b; a mask token gets W p + b. The positions are those of the context encoder, which
    the predictor's gradient trains, too, if they are learned; the target encoder's follow by EMA as all its parameters
    do. They stay the encoder's parameters: learning rate, weight decay and gradient norm count them there, and a
    checkpoint holds them once.
    """

    def __init__(self, params: ComponentParams, grid: Grid, embed_dim: int, num_heads: int) -> None:
        super().__init__(params, grid, embed_dim, num_heads)
        self._encoder: tuple[PositionEmbedding, ...] = ()  # a tuple, so that its parameters are not counted as ours

    @classmethod
    def check(cls, params: ComponentParams, known: PositionInputs) -> Problem | None:
        encoder = known.encoder
        if encoder is None:
            return Problem(
                "from_encoder is for the predictor alone, which then has the encoder's positions; choose another one "
                "for the encoder, such as learned or sincos"
            )
        if encoder.component.add is PositionEmbedding.add:
            return Problem(
                f"from_encoder needs positions that the encoder adds to its tokens, and those of {encoder.name!r} are "
                f"not added; choose {encoder.name!r} for the predictor, too, or learned or sincos for the encoder"
            )
        if known.grid != encoder.grid:
            return Problem(
                f"from_encoder knows the encoder's {encoder.grid} patches, and coarser levels have {known.grid} cells; "
                "choose learned, sincos or rope, or one level"
            )
        return None

    def follow(self, encoder: PositionEmbedding) -> None:
        self._encoder = (encoder,)

    def embed_features(self, embed: nn.Module, features: Tensor, indices: Tensor) -> Tensor:
        return _summable(embed(add_positions(self._followed, features, indices)))

    def embed_mask_tokens(self, embed: nn.Module, mask_token: Tensor, indices: Tensor) -> Tensor:
        everywhere = torch.arange(self.grid.num_patches, device=indices.device)[None]
        nothing = mask_token.new_zeros(1, self.grid.num_patches, self._followed.embed_dim)
        projected = _summable(embed(add_positions(self._followed, nothing, everywhere)))[0]  # [N, P]
        return mask_token + take_rows(projected, indices)

    @property
    def _followed(self) -> PositionEmbedding:
        assert len(self._encoder) == 1, "a predictor is built with the encoder's embedding"
        return self._encoder[0]


def _summable(tokens: Tensor) -> Tensor:
    """Tokens that blocks add to: half precision is for products."""
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))
