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

    def forward(
        self, context: Tensor, pairs: PackedPairs, context_patches: Tensor, level: PredictorLevel | None = None
    ) -> Tensor:
        """Predict the features of every target patch from every context view.

        Args:
            context: [n, D] features of the tokens of the context views.
            context_patches: [1, n] int64, their places on the grid.
            level: of another grid than the predictor's own; the tokens are then those of its cells.
        Returns:
            [m, target_dim], a row for each mask token of the pairs.
        """
        position: PositionEmbedding = self.position
        mask_token: Tensor = self.mask_token
        if level is not None:
            position, mask_token = level.position, level.mask_token_beside(mask_token)
        seen = position.embed_features(self.embed, context[None], context_patches)[0]  # [n, P]
        asked = position.embed_mask_tokens(self.embed, mask_token, pairs.target_patches)[0]  # [m, P]
        tokens = pairs.merge.of(seen, asked)
        rotation = rotation_at(position, pairs.patches)
        for depth, block in enumerate(self.blocks, start=1):
            read = pairs.read if depth == len(self.blocks) else None
            tokens = call_block(block, self.recompute, tokens, rotation, pairs.sequences, None, read)
        predictions: Tensor = self.proj(self.norm(tokens))
        return predictions

    def beside(self, finest: Predictor) -> LevelPredictor:
        """What predicts a level above the patches: this predictor, which is the level's own."""
        return self, None


class PredictorLevel(nn.Module):
    """What a coarser level has of its own where all levels share a predictor.

    Everything else is shared, so that a level is told from another one by its features and its positions, and by its
    mask token if it has one.

    Args:
        position: on the level's grid, for the predictor's width.
        mask_token_dim: width of a mask token of its own; None takes the predictor's.
    """

    def __init__(self, position: PositionEmbedding, mask_token_dim: int | None) -> None:
        super().__init__()
        self.position = position
        self.mask_token = None if mask_token_dim is None else nn.Parameter(torch.zeros(1, 1, mask_token_dim))

    def mask_token_beside(self, shared: Tensor) -> Tensor:
        """The level's mask token, [1, 1, P]."""
        return shared if self.mask_token is None else self.mask_token

    def beside(self, finest: Predictor) -> LevelPredictor:
        """What predicts a level above the patches: the predictor of the patches, called for this level."""
        return finest, self


LevelPredictor = tuple[Predictor, PredictorLevel | None]
"""A predictor, and the level that it is called for; None for the grid that it was built for."""
