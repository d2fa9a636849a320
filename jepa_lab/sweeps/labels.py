"""Short stable texts for values: in names of arms, in tables, and where Optuna or pandas need scalars."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from jepa_lab.config.pipeline import Pipeline

MAX_NAME = 100
Scalar = str | bool | int | float | None


def label(value: Any) -> str:
    """`half`, `0.001`, `true`, `[0.15, 0.2]`, `multi_block(num_targets=2)`, `{a: 1}`."""
    if isinstance(value, Mapping):
        rest = {key: held for key, held in value.items() if key != "name"}
        if "name" not in value:
            return "{" + ", ".join(f"{key}: {label(held)}" for key, held in rest.items()) + "}"
        parameters = ", ".join(f"{key}={label(held)}" for key, held in rest.items())
        return f"{value['name']}({parameters})" if parameters else str(value["name"])
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(label, value))}]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


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
