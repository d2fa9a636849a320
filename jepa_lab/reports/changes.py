"""In which of the swept keys an arm differs from the baseline, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from jepa_lab.reports.numbers import short_value

_PARAMETERS = re.compile(r"\(.*\)$", re.DOTALL)


def changed_keys(values: Mapping[str, object], baseline: Mapping[str, object]) -> dict[str, str]:
    """The keys in which an arm differs, each thing said once.

    Where `masker` and `masker.num_targets` are both swept, the second says it all for an arm that keeps the masker,
    and nothing for an arm with another masker, which has no such parameter.

    Args:
        values, baseline: value of every swept key; a component is its label, such as `multi_block(num_targets=2)`;
            None for a key that there is not.
    """
    differing = {key: value for key, value in values.items() if value != baseline[key]}

    def is_said_by_its_parts(key: str) -> bool:
        same_component = _component(values[key]) == _component(baseline[key])
        return same_component and any(other.startswith(f"{key}.") for other in differing)

    def follows_from_its_component(key: str) -> bool:
        return values[key] is None and any(key.startswith(f"{other}.") for other in differing)

    return {
        key: _shown(value)
        for key, value in differing.items()
        if not is_said_by_its_parts(key) and not follows_from_its_component(key)
    }


def _component(value: object) -> str:
    return _PARAMETERS.sub("", str(value))


def _shown(value: object) -> str:
    """A value for people: the digits of a number that a sampler drew are no information."""
    if value is None:
        return "absent"
    return short_value(value) if isinstance(value, float) else str(value)
