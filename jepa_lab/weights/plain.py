"""From the parts of an encoder to the module of plain PyTorch, and to its description as JSON values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ModelSize
from jepa_lab.weights.encoder_parts import EncoderParts
from jepa_lab.weights.plain_encoder import PlainEncoder

_RENAMED = (("patch_embed.proj.", "patch_embed."), (".mlp.", "."), (".gamma", ""))
_SCALE = re.compile(r"blocks\.\d+\.scale[12]")


def describe(parts: EncoderParts) -> dict[str, Any]:
    """Content of encoder.json."""
    return {
        "embed_dim": parts.size.embed_dim,
        "depth": parts.size.depth,
        "num_heads": parts.size.num_heads,
        "hidden_dim": parts.hidden_dim,
        "patch_size": parts.patch_size,
        "grid": [parts.grid.height, parts.grid.width],
        "layer_norm_eps": parts.layer_norm_eps,
        "num_prefix_tokens": len(parts.prefix),
        "rotary": parts.rotation is not None,
        "channel_mean": parts.mean.tolist(),
        "channel_std": parts.std.tolist(),
        "crop_fraction": parts.crop_fraction,
    }


def plain_encoder_of(parts: EncoderParts) -> PlainEncoder:
    """The encoder in plain PyTorch; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):  # first weights are drawn from it, and then replaced
        encoder = PlainEncoder(describe(parts))
    state = encoder.state_dict()  # zero positions, factors of 1
    for name, tensor in parts.weights.items():
        for ours, theirs in _RENAMED:
            name = name.replace(ours, theirs)  # noqa: PLW2901
        state[name] = tensor
    if parts.positions is not None:
        state["positions"] = parts.positions
    if len(parts.prefix):
        state["prefix"] = parts.prefix
    if parts.rotation is not None:
        state["cosine"], state["sine"] = parts.rotation
    encoder.load_state_dict(state)
    return encoder.eval()


def parts_of_plain(description: Mapping[str, Any], state: Mapping[str, Tensor]) -> EncoderParts:
    """The parts again, from what `describe` and `plain_encoder_of` gave.

    Raises:
        KeyError, RuntimeError: something is missing or does not fit.
    """
    PlainEncoder(dict(description)).load_state_dict(state)  # strict: nothing is missing, and nothing too many
    aside = {"positions", "prefix", "cosine", "sine"}
    scaled = any(not tensor.eq(1).all() for name, tensor in state.items() if _SCALE.fullmatch(name))
    weights = {}
    for name, tensor in state.items():
        if name in aside or (not scaled and _SCALE.fullmatch(name)):
            continue
        weights[_ours(name)] = tensor
    dim = description["embed_dim"]
    positions = state["positions"]
    return EncoderParts(
        size=ModelSize(dim, description["depth"], description["num_heads"], description["hidden_dim"] / dim),
        grid=Grid(*description["grid"]),
        patch_size=description["patch_size"],
        weights=weights,
        positions=positions if positions.any() else None,
        rotation=(state["cosine"], state["sine"]) if description["rotary"] else None,
        prefix=state.get("prefix", torch.zeros(0, dim)),
        layer_norm_eps=description["layer_norm_eps"],
        has_layer_scale=scaled,
        mean=torch.tensor(description["channel_mean"]),
        std=torch.tensor(description["channel_std"]),
        crop_fraction=description["crop_fraction"],
    )


def _ours(name: str) -> str:
    name = re.sub(r"^patch_embed\.", "patch_embed.proj.", name)
    name = re.sub(r"(blocks\.\d+\.)(fc[12]\.)", r"\1mlp.\2", name)
    return f"{name}.gamma" if _SCALE.fullmatch(name) else name
