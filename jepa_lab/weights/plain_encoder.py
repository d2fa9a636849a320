"""The encoder of a run in PyTorch alone: `load_encoder(folder)` reads what lies beside this file.

Exports carry a copy of this file, so it imports nothing of jepa-lab.

model.safetensors   weights and positions, float32
encoder.json        sizes, and the mean and standard deviation of each channel
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention; where there are rotary positions, queries and keys are rotated by them."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, N, D] -> [B, N, D]; the rotation is [N, head_dim] twice."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            query, key = rotated(query, *rotation), rotated(key, *rotation)
        attended = F.scaled_dot_product_attention(query, key, value)  # [B, heads, N, head_dim]
        return self.proj(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block; the factors of layer scale are 1 where the encoder has none."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=eps)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=eps)
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)
        self.register_buffer("scale1", torch.ones(embed_dim))
        self.register_buffer("scale2", torch.ones(embed_dim))

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = x + self.scale1 * self.attn(self.norm1(x), rotation)
        return x + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))


class PlainEncoder(nn.Module):
    """A vision transformer that is read at its patches; it may have tokens of its own before them.

    Args:
        description: content of encoder.json.
    """

    mean: Tensor
    std: Tensor
    prefix: Tensor
    positions: Tensor

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__()
        dim, heads, patch = description["embed_dim"], description["num_heads"], description["patch_size"]
        height, width = description["grid"]
        eps = description["layer_norm_eps"]
        self.patch_embed = nn.Conv2d(len(description["channel_mean"]), dim, patch, patch)
        blocks = (Block(dim, heads, description["hidden_dim"], eps) for _ in range(description["depth"]))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.has_rotation: bool = description["rotary"]
        self.register_buffer("positions", torch.zeros(height * width, dim))
        self.num_prefix_tokens: int = description["num_prefix_tokens"]
        if self.num_prefix_tokens:
            self.register_buffer("prefix", torch.zeros(self.num_prefix_tokens, dim))
        if self.has_rotation:
            self.register_buffer("cosine", torch.ones(height * width, dim // heads))
            self.register_buffer("sine", torch.zeros(height * width, dim // heads))
        self.register_buffer("mean", torch.tensor(description["channel_mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(description["channel_std"])[:, None, None], persistent=False)

    @property
    def num_patches(self) -> int:
        """N, of a whole image."""
        return len(self.positions)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features of images.

        Args:
            pixels: [B, C, H, W] between 0 and 1; they are normalised here.
        Returns:
            [B, D] averaged over the patches of each image, and [B, N, D] of each patch in raster order.
        """
        patches = self.last_layers((pixels - self.mean) / self.std, 1)
        return patches.mean(dim=1), patches

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        """Features of the last blocks, each after the final norm, side by side.

        Args:
            images: [B, C, H, W], normalised.
        Returns:
            [B, N, num_layers * D], the last block's features at the end.
        """
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2) + self.positions
        if self.num_prefix_tokens:
            tokens = torch.cat([self.prefix.expand(len(tokens), -1, -1), tokens], dim=1)
        rotation = (self.cosine, self.sine) if self.has_rotation else None
        outputs = []
        for depth, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, rotation)
            if depth > len(self.blocks) - num_layers:
                outputs.append(self.norm(tokens)[:, self.num_prefix_tokens :])
        return torch.cat(outputs, dim=-1)


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Each pair of features (2i, 2i + 1) of queries or keys, turned by the angle of its patch."""
    even, odd = x[..., ::2], x[..., 1::2]
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return x * cosine + turned * sine


def load_encoder(folder: str | Path) -> PlainEncoder:
    """The encoder of an export, ready to use."""
    folder = Path(folder)
    encoder = PlainEncoder(json.loads((folder / "encoder.json").read_text(encoding="utf-8")))
    encoder.load_state_dict(load_file(folder / "model.safetensors"))
    return encoder.eval()
