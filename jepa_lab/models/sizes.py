"""Sizes of encoders and predictors: named, relative to the encoder, or free.

A size is a component like any other, so that an ablation over sizes is a list of names.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from pydantic import Field

from jepa_lab.contracts import require
from jepa_lab.errors import Problem
from jepa_lab.registry import Component, ComponentParams, Registry


@dataclass(frozen=True)
class ModelSize:
    """Width D, number of blocks, attention heads, and the MLP's hidden width over D."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0

    def check(self) -> Problem | None:
        """The rule that these numbers break and its remedy, or None where they fit."""
        if self.embed_dim % self.num_heads:
            return Problem(
                f"num_heads must divide the width, got {self.num_heads} heads for {self.embed_dim}; "
                f"choose a width that is a multiple of {self.num_heads}, or other heads",
                keys=["num_heads", "embed_dim"],
            )
        if self.embed_dim * self.mlp_ratio < 1:
            return Problem(
                f"mlp_ratio must leave the MLP a hidden width, got {self.mlp_ratio} of {self.embed_dim}; raise it",
                keys=["mlp_ratio", "embed_dim"],
            )
        return None

    def __str__(self) -> str:
        return f"{self.embed_dim}x{self.depth}x{self.num_heads}"


class EncoderSize(Component[None], ABC):
    """A named or free size of the encoder."""

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @abstractmethod
    def resolve(self) -> ModelSize:
        """Width, depth and heads."""


class PredictorSize(Component[None], ABC):
    """A named, relative or free size of the predictor."""

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @abstractmethod
    def resolve(self, encoder: ModelSize) -> ModelSize:
        """Width, depth and heads beside this encoder."""


def require_size(component: EncoderSize | PredictorSize, size: object) -> None:
    """Refuse what `resolve` returned, unless it is a size.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(component, "resolve", isinstance(size, ModelSize), size, "a ModelSize")
    assert isinstance(size, ModelSize)
    for name in ("embed_dim", "depth", "num_heads"):
        number = getattr(size, name)
        require(component, f"resolve().{name}", type(number) is int and number >= 1, number, "an int of at least 1")
    ratio = size.mlp_ratio
    fits = isinstance(ratio, int | float) and math.isfinite(ratio) and ratio > 0
    require(component, "resolve().mlp_ratio", fits, ratio, "a number above 0")


ENCODER_SIZES: Registry[EncoderSize] = Registry("encoder_size", EncoderSize)
PREDICTOR_SIZES: Registry[PredictorSize] = Registry("predictor_size", PredictorSize)


def register_encoder_size(name: str, size: ModelSize, source: str) -> None:
    """Add a fixed encoder size under `name`."""

    class FixedEncoderSize(EncoderSize):
        """Always the same size."""

        def resolve(self) -> ModelSize:
            return size

    ENCODER_SIZES.register(name, summary=f"Width, depth, heads {size}.", source=source)(FixedEncoderSize)


def register_predictor_size(name: str, size: ModelSize, source: str) -> None:
    """Add a fixed predictor size under `name`; width, depth and heads do not depend on the encoder."""

    class FixedPredictorSize(PredictorSize):
        """Always the same size."""

        def resolve(self, encoder: ModelSize) -> ModelSize:
            return size

    PREDICTOR_SIZES.register(name, summary=f"Width, depth, heads {size}.", source=source)(FixedPredictorSize)


def register_relative_size(name: str, share: float) -> None:
    """Add a predictor size that is a share of the encoder's width and depth, with the encoder's heads."""

    class RelativePredictorSize(PredictorSize):
        """A share of the encoder."""

        def resolve(self, encoder: ModelSize) -> ModelSize:
            return ModelSize(
                embed_dim=round(encoder.embed_dim * share),
                depth=max(1, round(encoder.depth * share)),
                num_heads=encoder.num_heads,
                mlp_ratio=encoder.mlp_ratio,
            )

    PREDICTOR_SIZES.register(
        name,
        summary=f"{share:g} of the encoder's width and depth (at least 1 block), the encoder's heads.",
        source="jepa-lab",
    )(RelativePredictorSize)


class FreeSizeParams(ComponentParams):
    """Width, depth and heads of one's own."""

    embed_dim: int = Field(ge=1, description="Width of the tokens.")
    depth: int = Field(ge=1, le=1000, description="Transformer blocks.")
    num_heads: int = Field(ge=1, description="Attention heads; must divide embed_dim.")
    mlp_ratio: float = Field(4.0, gt=0, description="Hidden width of the MLP divided by embed_dim.")

    def size(self) -> ModelSize:
        """The same numbers as a ModelSize."""
        return ModelSize(self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)


@ENCODER_SIZES.register("custom", summary="Width, depth and heads of one's own.", source="jepa-lab")
class CustomEncoderSize(EncoderSize):
    """Whatever the parameters say."""

    Params = FreeSizeParams
    params: FreeSizeParams

    def resolve(self) -> ModelSize:
        return self.params.size()


@PREDICTOR_SIZES.register("custom", summary="Width, depth and heads of one's own.", source="jepa-lab")
class CustomPredictorSize(PredictorSize):
    """Whatever the parameters say."""

    Params = FreeSizeParams
    params: FreeSizeParams

    def resolve(self, encoder: ModelSize) -> ModelSize:
        return self.params.size()


_VIT = "Dosovitskiy et al. 2021, arXiv:2010.11929; Touvron et al. 2021, arXiv:2012.12877"
_IJEPA = "Assran et al. 2023, arXiv:2301.08243, and the released code"
register_encoder_size("cifar", ModelSize(192, 6, 6), "jepa-lab: a ViT for 32-pixel images")
register_encoder_size("tiny", ModelSize(192, 12, 3), _VIT)
register_encoder_size("small", ModelSize(384, 12, 6), _VIT)
register_encoder_size("base", ModelSize(768, 12, 12), _VIT)
register_encoder_size("large", ModelSize(1024, 24, 16), _VIT)
register_encoder_size("huge", ModelSize(1280, 32, 16), _IJEPA)
register_encoder_size("giant", ModelSize(1408, 40, 16, mlp_ratio=48 / 11), _IJEPA)
for _width, _depth, _heads in ((192, 3, 3), (384, 6, 6), (768, 12, 12), (1024, 12, 16)):
    register_predictor_size(f"{_width}x{_depth}", ModelSize(_width, _depth, _heads), "jepa-lab: heads of 64")
for _name, _share in (("quarter", 0.25), ("half", 0.5), ("full", 1.0)):
    register_relative_size(_name, _share)
