"""Short stable texts for values: in names of arms, in tables, in a tracker's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
