"""Vision transformer over any subset of an image's patches, without a class token."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lab.grid import Grid, patchify
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.layer_scale import LayerScale, build_layer_scale
from jepa_lab.models.packing import PackedPatches
from jepa_lab.models.recompute import call_block
from jepa_lab.models.rows import Rows
from jepa_lab.models.sequences import PaddedSequences, Sequences
from jepa_lab.models.sizes import ModelSize
from jepa_lab.positions.base import PositionEmbedding, Rotation, add_positions, apply_rotation, rotation_at

LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention, fused."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, rotation: Rotation | None, sequences: Sequences, read: Rows | None = None) -> Tensor:
        """Attention of tokens to those of their sequence.

        Args:
            x: [n, D]. rotation: of queries and keys, see `_heads`; None where positions are absolute.
            read: which tokens are wanted; None for all. What the others attend to is not projected.
        """
        out = sequences.attend(*self._heads(x, rotation)).flatten(1)  # [n, D]
        return self.proj(out if read is None else read.of(out))

    def with_weights(self, x: Tensor, rotation: Rotation | None, sequences: PaddedSequences) -> tuple[Tensor, Tensor]:
        """What `forward` returns, to rounding, and the weights, which the fused computation never holds.

        Returns:
            [S * L, D], and [S, H, L, L]: how much each query (third) attends to each key (last); they sum to 1.
        """
        heads = (part.unflatten(0, sequences.shape).transpose(1, 2) for part in self._heads(x, rotation))
        query, key, value = heads  # each [S, H, L, head_dim]
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if sequences.attended is not None:
            scores = scores.masked_fill(~sequences.attended, float("-inf"))
        weights = scores.softmax(dim=-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2).flatten(0, 1)), weights

    def _heads(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [n, H, head_dim].

        Args:
            rotation: each part [1, 1, L, head_dim]; it holds for every L tokens of the buffer anew.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # [n, 3, H, head_dim]
        if rotation is None:
            query, key, value = qkv.unbind(1)
            return query, key, value
        turning, value = qkv.split((2, 1), dim=1)  # queries and keys turn alike: in one go
        cosine, sine = (part.transpose(1, 2).unsqueeze(2) for part in rotation)  # each [1, L, 1, 1, head_dim]
        turned = apply_rotation(turning.unflatten(0, (-1, cosine.shape[1])), (cosine, sine))
        query, key = turned.to(qkv.dtype).flatten(0, 1).unbind(1)
        return query, key, value.squeeze(1)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, embed_dim: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(embed_dim * mlp_ratio)
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: each of its two branches adds to the tokens.

    Args:
        layer_scale: first value of the branches' learned factors; None has none.
    """

    def __init__(self, size: ModelSize, layer_scale: float | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.embed_dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(size.embed_dim, size.num_heads)
        self.norm2 = nn.LayerNorm(size.embed_dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(size.embed_dim, size.mlp_ratio)
        self.scale1 = build_layer_scale(size.embed_dim, layer_scale)
        self.scale2 = build_layer_scale(size.embed_dim, layer_scale)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        sequences: Sequences,
        factors: Tensor | None = None,
        read: Rows | None = None,
    ) -> Tensor:
        """The tokens after the block.

        Args:
            x, rotation, sequences: as for `Attention`.
            factors: [n, 2] on the two branches of each token, or None for 1.
            read: which tokens are wanted; None for all. All attend, and no more than that is computed for the others.
        Returns:
            [n, D], or those that are read.
        """
        attended = self.scale1(self.attn(self.norm1(x), rotation, sequences, read))
        if read is not None:
            x, factors = read.of(x), None if factors is None else read.of(factors)
        x = x + (attended if factors is None else attended * factors[:, :1])
        computed = self.scale2(self.mlp(self.norm2(x)))
        return x + (computed if factors is None else computed * factors[:, 1:])


class PatchEmbed(nn.Module):
    """Linear embedding of square patches.

    The weight has the shape of the usual convolution with stride = patch size. Such a convolution is a linear map
    of each patch, so only the patches that are wanted need embedding.
    """

    def __init__(self, patch_size: int, num_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(num_channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def patchify(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, C * patch_size**2], patches in raster order."""
        return patchify(images, self.patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        """[n, C * patch_size**2] -> [n, D]."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class VisionTransformer(nn.Module):
    """Encoder of all patches of an image, or of some of them.

    Args:
        grid: patches of an image.
        patch_size: side of a patch in pixels.
        num_channels: C of the images.
        size: width, depth and heads.
        position: embedding for this grid and width.
        layer_scale: first value of every block's learned factors; None has none.
        recompute: compute the blocks again in the backward pass instead of keeping what they computed.
    Source: Dosovitskiy et al. 2021, arXiv:2010.11929. Differs: no class token, final LayerNorm on every patch.
    """

    def __init__(
        self,
        grid: Grid,
        patch_size: int,
        num_channels: int,
        size: ModelSize,
        position: PositionEmbedding,
        *,
        layer_scale: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.size = size
        self.recompute = recompute
        self.patch_embed = PatchEmbed(patch_size, num_channels, size.embed_dim)
        self.position = position
        self.blocks = nn.ModuleList(Block(size, layer_scale) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.embed_dim, eps=LAYER_NORM_EPS)

    @property
    def num_patches(self) -> int:
        """N, of a whole image."""
        return self.grid.num_patches

    def forward(self, images: Tensor, patches: Patches | None = None) -> Tensor:
        """Encode patches; those that are not among `patches` are never looked at.

        Args:
            images: [B, C, H, W] float, channel-normalised.
            patches: [B, K] of each image; None for every patch in raster order.
        Returns:
            [B, K, D]; padded positions hold numbers without meaning.
        """
        return self.encode(images, self._tokens(images, patches)).unflatten(0, (len(images), -1))

    def last_layers(self, images: Tensor, num_layers: int, patches: Patches | None = None) -> Tensor:
        """Features of the last `num_layers` blocks, each after the final norm, side by side; see `forward`.

        Returns:
            [B, K, num_layers * D], the last block's features at the end.
        """
        outputs = self._run_blocks(images, self._tokens(images, patches), num_layers)
        return torch.cat([self.norm(output) for output in outputs], dim=-1).unflatten(0, (len(images), -1))

    def of_whole_images(self, images: Tensor, read: Tensor | None) -> Tensor:
        """Encode whole images where only some patches are read, without gradients.

        Args:
            images: [B, C, H, W] float, channel-normalised.
            read: [u] int64, image * N + patch; None for all. All patches attend, but after the last attention nothing
                is computed for the others.
        Returns:
            [u, D], or [B * N, D].
        """
        return self.encode(images, self._tokens(images, None), read=None if read is None else Rows(read))

    def encode(
        self, images: Tensor, tokens: PackedPatches, drop_path: Tensor | None = None, read: Rows | None = None
    ) -> Tensor:
        """Encode the tokens of a buffer.

        Args:
            images: [B, C, H, W] float, channel-normalised.
            tokens: which patches of the images they are.
            drop_path: [B, depth, 2] factors on the branches of the blocks, see `DropPath`; None for 1. All tokens of
                an image share them.
            read: which tokens are wanted; None for all.
        Returns:
            [n, D], or those that are read.
        """
        return self.norm(self._run_blocks(images, tokens, 1, drop_path, read)[-1])

    def at_grid(self, grid: Grid) -> VisionTransformer:
        """This encoder for images of another grid of patches: its own positions, and the very weights of this one.

        Training one of the two trains the other; only learned positions are a copy, resampled.
        """
        shared: dict[int, object] = {id(parameter): parameter for parameter in self.parameters()}
        other = copy.deepcopy(self, shared)
        other.grid, other.position = grid, self.position.at_grid(grid)
        return other

    @torch.no_grad()
    def attention_weights(self, images: Tensor, layer: int) -> Tensor:
        """How much each patch of whole images attends to each other one in a block.

        Args:
            layer: number of the block, from 1.
        Returns:
            [B, H, N, N], query before key; each row sums to 1.
        """
        whole = self._tokens(images, None)
        tokens, rotation = self._embed(images, whole)
        for block in self.blocks[: layer - 1]:
            tokens = block(tokens, rotation, whole.sequences)
        last: Any = self.blocks[layer - 1]
        weights: Tensor = last.attn.with_weights(last.norm1(tokens), rotation, whole.sequences)[1]
        return weights

    def _tokens(self, images: Tensor, patches: Patches | None) -> PackedPatches:
        if patches is None:
            return PackedPatches.whole(len(images), self.grid.num_patches, images.device)
        return PackedPatches.padded(patches, self.grid.num_patches)

    def _embed(self, images: Tensor, packed: PackedPatches) -> tuple[Tensor, Rotation | None]:
        """Tokens [n, D] of the patches with their positions, and the rotation of their queries and keys."""
        patches = self.patch_embed.patchify(images).flatten(0, 1)  # [B * N, C * patch_size**2]
        tokens = self.patch_embed(patches if packed.rows is None else patches.index_select(0, packed.rows))
        # Blocks add to the tokens: under autocast they would be sums in half precision where positions add nothing.
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        places = packed.patches  # [1, L]
        placed = add_positions(self.position, tokens.unflatten(0, (-1, places.shape[1])), places)
        return placed.flatten(0, 1), rotation_at(self.position, places)

    def _run_blocks(
        self,
        images: Tensor,
        packed: PackedPatches,
        keep_last: int,
        drop_path: Tensor | None = None,
        read: Rows | None = None,
    ) -> list[Tensor]:
        tokens, rotation = self._embed(images, packed)
        if drop_path is not None:
            drop_path = drop_path.index_select(0, packed.images)  # [n, depth, 2]
        outputs = []
        for depth, block in enumerate(self.blocks, start=1):
            factors = None if drop_path is None else drop_path[:, depth - 1]
            read_now = read if depth == len(self.blocks) else None
            tokens = call_block(block, self.recompute, tokens, rotation, packed.sequences, factors, read_now)
            if depth > len(self.blocks) - keep_last:
                outputs.append(tokens)
        return outputs


def initialize_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Truncated normal (std 0.02) for every weight, zero biases, unit norms, from `generator` alone.

    Layer scales keep the value that they were built with.

    Source: the released code. It also writes a rescale by depth and then undoes it, so in effect there is none.
    """
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 1:
            nn.init.ones_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
    for part in module.modules():
        if isinstance(part, LayerScale):
            part.reset()
