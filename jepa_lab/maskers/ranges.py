"""Ranges that maskers draw from, as validated (minimum, maximum) pairs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo, WithJsonSchema


def _scale(value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high <= 1:
        raise ValueError(f"{info.field_name} must satisfy 0 < min <= max <= 1, got ({low}, {high})")
    return value


def _aspect_ratio(value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high:
        raise ValueError(f"{info.field_name} must satisfy 0 < min <= max, got ({low}, {high})")
    return value


def _ratio(value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high < 1:
        raise ValueError(f"{info.field_name} must satisfy 0 < min <= max < 1, got ({low}, {high})")
    return value


def _pair(**bounds: float) -> WithJsonSchema:
    """What the schema says of a pair of numbers; that they are in order cannot be said there."""
    schema: dict[str, Any] = {"type": "array", "minItems": 2, "maxItems": 2}
    return WithJsonSchema({**schema, "prefixItems": [{"type": "number", **bounds}] * 2})


ScaleRange = Annotated[tuple[float, float], AfterValidator(_scale), _pair(exclusiveMinimum=0, maximum=1)]
"""Area of a block as a share of the grid."""

AspectRatioRange = Annotated[tuple[float, float], AfterValidator(_aspect_ratio), _pair(exclusiveMinimum=0)]
"""Height of a block divided by its width, or width by height (`BlockParams.aspect_ratio_is`)."""

RatioRange = Annotated[tuple[float, float], AfterValidator(_ratio), _pair(exclusiveMinimum=0, exclusiveMaximum=1)]
"""Share of an image's patches; neither none nor all of them."""
