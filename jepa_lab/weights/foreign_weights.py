"""From weights that others trained to the parts of an encoder; nothing is skipped in silence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ModelSize
from jepa_lab.weights.encoder_parts import EncoderParts

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_PREFIX_TOKENS = ("cls_token", "reg_token")
_SHOWN = 6


@dataclass(frozen=True)
class Origin:
    """What a state dictionary does not say.

    Attributes:
        source: what was given, for messages.
        num_heads: None where nobody says it.
        image_size: height and width; None for a square of as many patches as there are positions.
        mean, std: of the channels in [0, 1], by which its images were normalised; None where nobody says it.
    """

    source: str
    num_heads: int | None
    image_size: tuple[int, int] | None = None
    layer_norm_eps: float = 1e-6
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_fraction: float = 1.0


@dataclass(frozen=True)
class ForeignEncoder:
    """An encoder that comes from elsewhere.

    Attributes:
        left_out: tensors of the source that belong to no encoder of patches, such as a classifier's.
        knows_normalization: whether `parts.mean` and `parts.std` are those of its training.
    """

    parts: EncoderParts
    source: str
    left_out: tuple[str, ...]
    knows_normalization: bool


def assemble(state: Mapping[str, Tensor], left_out: Iterable[str], origin: Origin) -> ForeignEncoder:
    """The parts of an encoder from tensors under timm's names.

    Args:
        state: `patch_embed.proj.*`, `pos_embed`, `cls_token`, `reg_token`, `blocks.N.*`, `norm.*`.
        left_out: names of the source that are no part of it.
    Raises:
        ConfigError: tensors are missing, unknown, or of another shape, all listed.
    """
    state = {name: tensor.float() for name, tensor in state.items()}
    _require(state, ["patch_embed.proj.weight", "pos_embed", "norm.weight"], origin)
    dim, channels, patch_size, _ = state["patch_embed.proj.weight"].shape
    depth = 1 + max((int(found[1]) for name in state if (found := _BLOCK.match(name))), default=-1)
    if not depth:
        raise ConfigError(f"{origin.source}: there are no transformer blocks in it")
    state = {**_zero_biases(state, depth, dim), **state}
    _require(state, ["blocks.0.mlp.fc1.bias"], origin)
    hidden = len(state["blocks.0.mlp.fc1.bias"])
    scaled = "blocks.0.ls1.gamma" in state
    _compare(state, _expected_shapes(dim, channels, patch_size, depth, hidden, scaled), origin)
    prefix, positions, grid = _tokens(state, patch_size, origin)
    heads = _heads(origin, dim)
    mean, std = origin.mean or (0.0,) * channels, origin.std or (1.0,) * channels
    if len(mean) != channels:
        raise ConfigError(f"{origin.source} takes {channels} channels and says the mean of {len(mean)}")
    own = {name: tensor for name, tensor in state.items() if name not in (*_PREFIX_TOKENS, "pos_embed")}
    renamed = {name.replace(".ls1.", ".scale1.").replace(".ls2.", ".scale2."): tensor for name, tensor in own.items()}
    parts = EncoderParts(
        size=ModelSize(dim, depth, heads, hidden / dim),
        grid=grid,
        patch_size=patch_size,
        weights=renamed,
        positions=positions,
        rotation=None,
        prefix=prefix,
        layer_norm_eps=origin.layer_norm_eps,
        has_layer_scale=scaled,
        mean=torch.tensor(mean),
        std=torch.tensor(std),
        crop_fraction=origin.crop_fraction,
    )
    return ForeignEncoder(parts, origin.source, tuple(left_out), origin.mean is not None)


def _zero_biases(state: Mapping[str, Tensor], depth: int, dim: int) -> dict[str, Tensor]:
    """Biases of queries, keys and values that a model without them would have."""
    names = [f"blocks.{number}.attn.qkv.bias" for number in range(depth)]
    return {} if any(name in state for name in names) else {name: torch.zeros(3 * dim) for name in names}


def _expected_shapes(
    dim: int, channels: int, patch_size: int, depth: int, hidden: int, scaled: bool
) -> dict[str, tuple[int, ...]]:
    block: dict[str, tuple[int, ...]] = {
        "norm1.weight": (dim,),
        "norm1.bias": (dim,),
        "attn.qkv.weight": (3 * dim, dim),
        "attn.qkv.bias": (3 * dim,),
        "attn.proj.weight": (dim, dim),
        "attn.proj.bias": (dim,),
        "norm2.weight": (dim,),
        "norm2.bias": (dim,),
        "mlp.fc1.weight": (hidden, dim),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (dim, hidden),
        "mlp.fc2.bias": (dim,),
        **({"ls1.gamma": (dim,), "ls2.gamma": (dim,)} if scaled else {}),
    }
    return {
        "patch_embed.proj.weight": (dim, channels, patch_size, patch_size),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        **{f"blocks.{number}.{name}": shape for number in range(depth) for name, shape in block.items()},
    }


def _require(state: Mapping[str, Tensor], names: Iterable[str], origin: Origin) -> None:
    missing = [name for name in names if name not in state]
    if missing:
        raise ConfigError(
            f"{origin.source} is not a vision transformer known here: {', '.join(missing)} is missing; it holds "
            f"{_few(sorted(state))}"
        )


def _compare(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], origin: Origin) -> None:
    aside = {"pos_embed", *_PREFIX_TOKENS}
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected and name not in aside]
    misshapen = [
        f"{name} {list(state[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    told = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    problems = [f"{len(names)} {what} ({_few(names)})" for what, names in told.items() if names]
    if problems:
        raise ConfigError(
            f"{origin.source}: its weights are not those of a plain vision transformer: {'; '.join(problems)}. "
            "Nothing is skipped; give the weights of a transformer with these parts"
        )


def _few(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _tokens(state: Mapping[str, Tensor], patch_size: int, origin: Origin) -> tuple[Tensor, Tensor, Grid]:
    """Tokens before the patches [P, D] with their positions, positions of the patches [N, D], and the patch grid."""
    table = state["pos_embed"].flatten(0, -2)  # [P + N or N, D]
    own = [state[name].flatten(0, -2) for name in _PREFIX_TOKENS if name in state]
    prefix = torch.cat(own) if own else table.new_zeros(0, table.shape[1])
    for count in dict.fromkeys((len(prefix), 0)):  # some models give the patches alone positions
        grid = _grid(len(table) - count, patch_size, origin.image_size)
        if grid is not None:
            return torch.cat([prefix[:count] + table[:count], prefix[count:]]), table[count:], grid
    raise ConfigError(
        f"{origin.source} has {len(table)} positions and {len(prefix)} tokens before the patches, which is not a "
        "square grid of patches"
    )


def _grid(num_patches: int, patch_size: int, image_size: tuple[int, int] | None) -> Grid | None:
    if image_size is not None:
        height, width = image_size[0] // patch_size, image_size[1] // patch_size
        return Grid(height, width) if height * width == num_patches else None
    side = math.isqrt(max(0, num_patches))
    return Grid(side, side) if side and side * side == num_patches else None


def _heads(origin: Origin, dim: int) -> int:
    heads = origin.num_heads
    if heads is None:
        raise ConfigError(
            f"{origin.source} does not say how many attention heads its encoder has, and the heads of width {dim} "
            "are not known; give a folder with its config.json, or a pipeline with an encoder of this width and heads"
        )
    if dim % heads:
        raise ConfigError(f"{origin.source}: {heads} attention heads do not divide the width {dim}")
    return heads
