"""Floating-point operations of the networks, counted in closed form."""

from __future__ import annotations

from jepa_lab.models.sizes import ModelSize


def transformer_flops(size: ModelSize, num_tokens: float) -> float:
    """Matrix products of a forward pass over one sequence; a multiply-add counts as 2.

    Each block: qkv and output projection 8 S D^2, attention scores and sums 4 S^2 D, MLP 4 r S D^2.
    """
    width = size.embed_dim
    hidden = int(width * size.mlp_ratio)
    per_token = 8 * width**2 + 4 * width * hidden + 4 * num_tokens * width
    return size.depth * num_tokens * per_token


def unread_flops(size: ModelSize, num_tokens: float) -> float:
    """What the last block of a forward pass need not compute for tokens that are not read: all after the attention."""
    width = size.embed_dim
    return num_tokens * (2 * width**2 + 4 * width * int(width * size.mlp_ratio))


def step_flops(
    encoder: ModelSize,
    predictor: ModelSize,
    patch_dim: int,
    num_patches: int,
    context_patches: float,
    target_patches: float,
    num_views: int,
    num_blocks: int,
    target_sequences: tuple[int, float] | None = None,
    target_dim: int | None = None,
) -> float:
    """Operations of a training step for one image: forward, and twice that for the backward pass.

    Args:
        patch_dim: channels times patch_size squared.
        target_sequences: how many sequences the target encoder computes, and of how many patches; by default one, of
            all patches.
        target_dim: features that the predictor puts out; the encoder's width by default.
        context_patches, target_patches: patches of one view and of one block, on average; padding counts.
    """
    width = encoder.embed_dim
    embed = 2 * patch_dim * width
    count, length = (1, float(num_patches)) if target_sequences is None else target_sequences
    target_pass = count * (transformer_flops(encoder, length) + embed * length)
    context_pass = num_views * (transformer_flops(encoder, context_patches) + embed * context_patches)
    out = width if target_dim is None else target_dim
    predictor_pass = predictor_flops(predictor, width, out, context_patches, target_patches, num_views, num_blocks)
    return target_pass + 3 * (context_pass + predictor_pass)


def predictor_flops(
    predictor: ModelSize,
    encoder_dim: int,
    target_dim: int,
    context_patches: float,
    target_patches: float,
    num_views: int,
    num_blocks: int,
) -> float:
    """Operations of a forward pass of a predictor for one image; see `step_flops`."""
    project_in, project_out = 2 * encoder_dim * predictor.embed_dim, 2 * target_dim * predictor.embed_dim
    return project_in * num_views * context_patches + num_views * num_blocks * (
        transformer_flops(predictor, context_patches + target_patches) + project_out * target_patches
    )
