"""Weights under the names that timm and the released I-JEPA code use."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from jepa_lab.errors import ConfigError
from jepa_lab.weights.foreign_weights import ForeignEncoder, Origin, assemble

_NO_ENCODER = ("head.", "head_dist.", "mask_token")


def width_of(state: Mapping[str, Tensor], source: str) -> int:
    """The width of an encoder.

    Raises:
        ConfigError: these are no such names.
    """
    weight = state.get("patch_embed.proj.weight")
    if weight is None:
        raise ConfigError(
            f"{source} is not a vision transformer with timm's names: it has no patch_embed.proj.weight, but "
            f"{', '.join(sorted(state)[:4])}; for a model of transformers give its folder"
        )
    return len(weight)


def from_timm_names(state: Mapping[str, Tensor], origin: Origin) -> ForeignEncoder:
    """The encoder, without a classifier's head.

    Raises:
        ConfigError: see `assemble`.
    """
    left_out = [name for name in state if name.startswith(_NO_ENCODER)]
    return assemble({name: tensor for name, tensor in state.items() if name not in left_out}, left_out, origin)
