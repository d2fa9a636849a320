"""The predictor: a narrow transformer that fills in the features of target patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_lab.models.packing import PackedPairs
from jepa_lab.models.recompute import call_block
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import LAYER_NORM_EPS, Block
from jepa_lab.positions.base import PositionEmbedding, rotation_at


class Predictor(nn.Module):
    """Predicts the features of each target block from a context view and the block's positions.

    Each pair of context view and target block is a sequence of its own: the context's features, then one mask
    token (a shared vector plus its position) for each target patch. Blocks never attend to each other.

    Args:
        encoder_dim: D of the features that come in.
        size: width P, depth and heads of the predictor.
        position: the predictor's own embedding, for its width.
        target_dim: features of a target patch, which go out; D by default.
        layer_scale: first value of every block's learned factors; None has none.
        recompute: compute the blocks again in the backward pass instead of keeping what they computed.
    Source: Assran et al. 2023, arXiv:2301.08243, sec. 3, and the released code.
    """

    def __init__(
        self,
        encoder_dim: int,
        size: ModelSize,
        position: PositionEmbedding,
        *,
        target_dim: int | None = None,
        layer_scale: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.size = size
        self.recompute = recompute
        self.embed = nn.Linear(encoder_dim, size.embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.embed_dim))
        self.position = position
        self.blocks = nn.ModuleList(Block(size, layer_scale) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.embed_dim, eps=LAYER_NORM_EPS)
        self.proj = nn.Linear(size.embed_dim, encoder_dim if target_dim is None else target_dim)

    def forward(self, context: Tensor, pairs: PackedPairs, context_patches: Tensor) -> Tensor:
        """Predict the features of every target patch from every context view.

        Args:
            context: [n, D] features of the tokens of the context views.
            context_patches: [1, n] int64, their places on the grid.
        Returns:
            [m, target_dim], a row for each mask token of the pairs.
        """
        seen = self.position.embed_features(self.embed, context[None], context_patches)[0]  # [n, P]
        asked = self.position.embed_mask_tokens(self.embed, self.mask_token, pairs.target_patches)[0]  # [m, P]
        tokens = pairs.merge.of(seen, asked)
        rotation = rotation_at(self.position, pairs.patches)
        for depth, block in enumerate(self.blocks, start=1):
            read = pairs.read if depth == len(self.blocks) else None
            tokens = call_block(block, self.recompute, tokens, rotation, pairs.sequences, None, read)
        predictions: Tensor = self.proj(self.norm(tokens))
        return predictions
