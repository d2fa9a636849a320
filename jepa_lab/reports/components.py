"""Params of components as one value each: `multi_block(num_targets=2)` in place of a column for every parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

ABSENT = "absent"
"""The value of a param that a group's runs do not have."""

Values = Mapping[str, Mapping[str, str]]
"""Group -> key -> value."""


def merged_components(keys: Sequence[str], values: Values) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """Columns and values where a component that differs is one column, named after its place in the config.

    A value is the component's name, with those of its parameters in which the groups that have it differ: parameters
    that another component has, and those that are alike, say nothing.

    Args:
        keys: params in which the groups differ.
        values: of these keys; `ABSENT` where a group has no such param.
    """
    suffix = ".name"
    places = {key.removesuffix(suffix) for key in keys if key.endswith(suffix)}
    outermost = {place for place in places if not any(place.startswith(f"{other}.") for other in places)}
    columns = tuple(dict.fromkeys(_column(key, outermost) for key in keys))
    parts = {place: [key for key in keys if key.startswith(f"{place}.")] for place in outermost}
    merged = {
        group: {
            column: _component(values, group, column, parts[column]) if column in parts else mine[column]
            for column in columns
        }
        for group, mine in values.items()
    }
    return columns, merged


def _column(key: str, places: Iterable[str]) -> str:
    """The component that a key belongs to, or the key itself."""
    return next((place for place in places if key == place or key.startswith(f"{place}.")), key)


def _component(values: Values, group: str, place: str, keys: Sequence[str]) -> str:
    name_key = f"{place}.name"
    mine = values[group]
    alike = [each for each in values.values() if each[name_key] == mine[name_key]]
    varying = [key for key in keys if key != name_key and len({each[key] for each in alike}) > 1]
    parameters = [f"{key.removeprefix(f'{place}.')}={mine[key]}" for key in varying if mine[key] != ABSENT]
    return f"{mine[name_key]}({', '.join(parameters)})" if parameters else mine[name_key]
