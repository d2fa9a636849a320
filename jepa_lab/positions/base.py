"""What a position embedding is: something added to tokens, or a rotation of queries and keys."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_lab.contracts import is_first, require, require_tensor
from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.registry import Component, ComponentParams, Registry

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines for the tokens of a sequence, each [B, 1, K, head_dim]; B is 1 where all sequences share them.

The features (2i, 2i + 1) turn together, by one angle.
"""


@dataclass(frozen=True)
class PositionsOfEncoder:
    """The position embedding of the encoder whose features a predictor reads.

    Attributes:
        name: that it is registered under.
        grid: of the encoder's patches.
    """

    name: str
    component: type[PositionEmbedding]
    grid: Grid


@dataclass(frozen=True)
class PositionInputs:
    """Where a position embedding is used: the patch grid, the width D of the tokens, and the attention heads.

    Attributes:
        encoder: what a predictor's embedding may follow; None for the embedding of an encoder.
    """

    grid: Grid
    embed_dim: int
    num_heads: int
    encoder: PositionsOfEncoder | None = None


class PositionEmbedding(Component[PositionInputs], nn.Module, ABC):
    """Tells a transformer where its tokens lie on the patch grid.

    A component overrides `add` (absolute embeddings) or `rotation` (relative ones), and leaves the other alone. One
    with trained parameters overrides `at_grid` too.

    Args:
        params: the embedding's own `Params`; `check` gets the rest as `PositionInputs`.
        grid: the patch grid; it need not be square.
        embed_dim: D, width of the tokens.
        num_heads: attention heads; D / num_heads is the head width.
    """

    def __init__(self, params: ComponentParams, grid: Grid, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.params = params
        self.grid = grid
        self.embed_dim = embed_dim
        self.num_heads = num_heads

    def add(self, tokens: Tensor, indices: Tensor) -> Tensor:
        """Add an absolute embedding.

        Args:
            tokens: [B, K, D]. indices: [B, K] int64 positions on the grid; [1, K] where all sequences share them.
        Returns:
            [B, K, D].
        """
        return tokens

    def rotation(self, indices: Tensor) -> Rotation | None:
        """The rotation of queries and keys at `indices` [B or 1, K], or None where positions are absolute."""
        return None

    def follow(self, encoder: PositionEmbedding) -> None:
        """Meet the embedding of the encoder whose features the predictor reads, where this one is the predictor's."""

    def embed_features(self, embed: nn.Module, features: Tensor, indices: Tensor) -> Tensor:
        """The tokens that a predictor makes of the encoder's features.

        Args:
            embed: the projection from the encoder's width D to the predictor's width P.
            features: [1, n, D]. indices: [1, n] int64 positions on the grid.
        Returns:
            [1, n, P].
        """
        return add_positions(self, embed(features), indices)

    def embed_mask_tokens(self, embed: nn.Module, mask_token: Tensor, indices: Tensor) -> Tensor:
        """The tokens that ask a predictor for the features of patches.

        Args:
            embed: as for `embed_features`. mask_token: [1, 1, P]. indices: [1, m] int64 positions on the grid.
        Returns:
            [1, m, P].
        """
        return add_positions(self, mask_token.expand(1, indices.shape[1], -1), indices)

    def at_grid(self, grid: Grid) -> PositionEmbedding:
        """This embedding for another grid, with the same device and number type; computed anew from its `params`.

        Raises:
            ConfigError: the embedding is trained, and does not say what its parameters are on another grid.
        """
        if next(self.parameters(), None) is not None:
            raise ConfigError(
                f"the position embedding {type(self).__name__} has trained parameters for a grid of {self.grid} and "
                f"none for one of {grid}; keep the resolution, or give its class an `at_grid`"
            )
        like = next(self.buffers(), None)
        other = type(self)(self.params, grid, self.embed_dim, self.num_heads)
        return other if like is None else other.to(device=like.device, dtype=like.dtype)


def add_positions(position: PositionEmbedding, tokens: Tensor, indices: Tensor) -> Tensor:
    """`position.add`, of which the first result is looked at.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    added = position.add(tokens, indices)
    if is_first(position, "add"):
        wide = torch.promote_types(tokens.dtype, torch.float32)  # half precision may become single, for exact sums
        dtypes = [tokens.dtype, wide]
        shape = tuple(tokens.shape)
        require_tensor(position, "add", added, shape, "[B, K, D]", dtypes=dtypes, device=tokens.device)
    return added


def rotation_at(position: PositionEmbedding, indices: Tensor) -> Rotation | None:
    """`position.rotation`, of which the first result is looked at.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    rotation = position.rotation(indices)
    if rotation is not None and is_first(position, "rotation"):
        pair = isinstance(rotation, tuple) and len(rotation) == 2
        require(position, "rotation", pair, rotation, "a pair of tensors (cosines, sines) or None")
        batch, patches = indices.shape
        shape = (batch, 1, patches, position.embed_dim // position.num_heads)
        for name, part in zip(("cosines", "sines"), rotation, strict=True):
            call = f"rotation ({name})"
            require_tensor(position, call, part, shape, "[B, 1, K, head_dim]", device=indices.device)
            if indices.device.type == "cpu":  # elsewhere the host would wait for the device
                paired = torch.equal(part[..., ::2], part[..., 1::2])
                require(position, call, paired, "two angles for one pair", "one angle for features 2i and 2i + 1")
    return rotation


def apply_rotation(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each pair of features (2i, 2i + 1) of queries or keys.

    Args:
        x: [..., head_dim]. rotation: of shapes that broadcast to it.
    Returns:
        [..., head_dim], in half precision only where both arguments are.
    """
    cosine, sine = rotation
    dtype = torch.promote_types(x.dtype, cosine.dtype)
    if x.device.type == "cpu" and dtype.itemsize >= 4 and not torch.compiler.is_compiling():
        return _turn_as_complex(x.to(dtype), cosine, sine)
    return _turn(x, cosine, sine)


def _turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """In real numbers, which a compiler fuses into one kernel."""
    pairs = x.unflatten(-1, (-1, 2))  # [..., head_dim / 2, 2]
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * cosine + turned * sine


def _turn_as_complex(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The same bits as one product of complex numbers: on a CPU a third of the time, gradients included."""
    factor = torch.complex(cosine[..., ::2].to(x.dtype), sine[..., ::2].to(x.dtype))  # [..., head_dim / 2]
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # [..., head_dim / 2]
    return torch.view_as_real(pairs * factor).flatten(-2)


POSITIONS: Registry[PositionEmbedding] = Registry("position", PositionEmbedding)
