"""Names of arms, and values as scalars where Optuna or pandas need them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from jepa_lab.config.pipeline import Pipeline
from jepa_lab.labels import label

MAX_NAME = 100
Scalar = str | bool | int | float | None


def scalar(value: Any) -> Scalar:
    """The value itself, or the label of a list or mapping."""
    return label(value) if isinstance(value, Mapping | list | tuple) else value


def arm_name(overrides: Iterable[tuple[str, Any]]) -> str:
    """`predictor.size=half, masker=random`; a long name ends in a digest of all of it."""
    text = ", ".join(f"{key}={label(value)}" for key, value in overrides)
    if len(text) <= MAX_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: MAX_NAME - 9]}~{digest}"


def resolved_value(pipeline: Pipeline, key: str) -> Scalar:
    """What a pipeline has at a dotted key, as a scalar; None where its component has no such parameter.

    A component is its name with the parameters that differ from their defaults.
    """
    value: Any = pipeline
    for step in key.split("."):
        value = getattr(value, step, None) if isinstance(value, BaseModel) else None
    return scalar(_plain(value))


def _plain(value: Any) -> Any:
    if not isinstance(value, BaseModel):
        return value
    fields = type(value).model_fields
    return {
        key: _plain(held)
        for key, held in value
        if key == "name" or held != fields[key].get_default(call_default_factory=True)
    }
