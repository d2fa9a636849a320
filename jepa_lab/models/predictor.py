"""The predictor: a narrow transformer that fills in the features of target patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.recompute import call_block
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import LAYER_NORM_EPS, Block, attention_mask
from jepa_lab.positions.base import PositionEmbedding, add_positions, rotation_at


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

    def forward(self, context: Tensor, masks: Masks) -> Tensor:
        """Predict.

        Args:
            context: [B, E, K, D] features of the context views.
        Returns:
            [B, E, M, T, target_dim].
        """
        batch, views, num_context = masks.context.shape
        num_blocks, num_target = masks.target.shape[1:]

        context_tokens = self.embed(context).flatten(0, 1)
        context_tokens = add_positions(self.position, context_tokens, masks.context.sequences().indices)
        context_tokens = context_tokens.unflatten(0, (batch, views))  # [B, E, K, P]
        mask_tokens = self.mask_token.expand(batch * num_blocks, num_target, -1)
        mask_tokens = add_positions(self.position, mask_tokens, masks.target.sequences().indices)
        mask_tokens = mask_tokens.unflatten(0, (batch, num_blocks))  # [B, M, T, P]

        tokens = _pair_sequences(context_tokens, mask_tokens)  # [B * E * M, K + T, P]
        pairs = _pair_patches(masks)
        rotation = rotation_at(self.position, pairs.indices)
        attend = attention_mask(pairs.valid)
        for block in self.blocks:
            tokens = call_block(block, self.recompute, tokens, rotation, attend)
        predictions = self.proj(self.norm(tokens[:, num_context:]))  # [B * E * M, T, target_dim]
        return predictions.unflatten(0, (batch, views, num_blocks))


def _pair_sequences(context: Tensor, target: Tensor) -> Tensor:
    """One sequence for every pair: [B, E, K, ...] and [B, M, T, ...] -> [B * E * M, K + T, ...]."""
    views, blocks = context.shape[1], target.shape[1]
    context = context.unsqueeze(2).expand(-1, -1, blocks, *context.shape[2:])
    target = target.unsqueeze(1).expand(-1, views, *target.shape[1:])
    return torch.cat([context, target], dim=3).flatten(0, 2)


def _pair_patches(masks: Masks) -> Patches:
    """The patches of every pair's sequence, [B * E * M, K + T]."""
    indices = _pair_sequences(masks.context.indices, masks.target.indices)
    if masks.context.valid is None and masks.target.valid is None:
        return Patches(indices)
    return Patches(indices, _pair_sequences(masks.context.validity(), masks.target.validity()))
