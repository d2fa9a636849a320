"""Every dotted key of a pipeline with its choices, read from the schema: what a shell completes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]


class _Found(NamedTuple):
    key: str
    choices: tuple[str, ...]
    component: str | None


def key_list(schema: Schema) -> dict[str, dict[str, list[str]]]:
    """Key -> `choices`, and `components` that have it, of which it may be a parameter.

    Args:
        schema: JSON schema of a pipeline.
    """
    keys: dict[str, dict[str, list[str]]] = {}
    for found in _walk(schema, schema.get("$defs", {}), "", None):
        entry = keys.setdefault(found.key, {"choices": [], "components": []})
        entry["choices"] += [choice for choice in found.choices if choice not in entry["choices"]]
        if found.component is not None and found.component not in entry["components"]:
            entry["components"].append(found.component)
    return keys


def _walk(schema: Schema, definitions: Schema, prefix: str, component: str | None) -> Iterator[_Found]:
    for name, part in schema.get("properties", {}).items():
        if component is not None and name == "name":
            continue
        variants, key = list(_variants(part, definitions)), f"{prefix}{name}"
        named = {each["properties"]["name"]["const"]: each for each in variants if _is_component(each)}
        sections = [each for each in variants if "properties" in each and not _is_component(each)]
        words = [word for each in variants for word in _words(each)]
        if not sections:
            yield _Found(key, tuple(dict.fromkeys([*named, *words])), component)
        for each in sections:
            yield from _walk(each, definitions, f"{key}.", None)
        for chosen, each in named.items():
            yield from _walk(each, definitions, f"{key}.", chosen)


def _variants(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """The schema without references, or each of those that it is one of."""
    if "$ref" in schema:
        yield from _variants(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
        return
    parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not parts:
        yield schema
    for part in parts:
        yield from _variants(part, definitions)


def _is_component(schema: Schema) -> bool:
    return "const" in schema.get("properties", {}).get("name", {})


def _words(schema: Schema) -> list[str]:
    """Values that can be listed."""
    if schema.get("type") == "boolean":
        return ["true", "false"]
    return [str(value) for value in schema.get("enum", [schema["const"]] if "const" in schema else [])]
