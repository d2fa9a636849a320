"""Ranges that maskers draw from, as validated (minimum, maximum) pairs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo


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


ScaleRange = Annotated[tuple[float, float], AfterValidator(_scale)]
"""Area of a block as a share of the grid."""

AspectRatioRange = Annotated[tuple[float, float], AfterValidator(_aspect_ratio)]
"""Height of a block divided by its width."""

RatioRange = Annotated[tuple[float, float], AfterValidator(_ratio)]
"""Share of an image's patches; neither none nor all of them."""
