"""What `jepa-lab list` shows: every registered component, read from the registries."""

from __future__ import annotations

from typing import Any

import jepa_lab.config.pipeline  # noqa: F401  (imports every family)
from jepa_lab.errors import ConfigError
from jepa_lab.registry import FAMILIES, ComponentParams, did_you_mean


def catalogue(family: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Family -> components with name, summary, source and fields.

    Raises:
        ConfigError: there is no such family.
    """
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"unknown family {family!r}{did_you_mean(family, FAMILIES)}")
    names = sorted(FAMILIES) if family is None else [family]
    return {
        name: [
            {
                "name": entry.name,
                "summary": entry.summary,
                "source": entry.source,
                "fields": _fields(entry.params_type),
            }
            for entry in FAMILIES[name]
        ]
        for name in names
    }


def _fields(params: type[ComponentParams]) -> list[dict[str, Any]]:
    schema = params.model_json_schema()
    return [
        {
            "name": name,
            "type": _type_in_words(schema["properties"][name]),
            "default": None if field.is_required() else schema["properties"][name].get("default"),
            "required": field.is_required(),
            "description": field.description,
        }
        for name, field in params.model_fields.items()
    ]


def _type_in_words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_type_in_words(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return "section"
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return f"[{', '.join(_type_in_words(item) for item in items)}]"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    rules = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([str(schema.get("type", "any")), *rules])


def print_catalogue(families: dict[str, list[dict[str, Any]]]) -> None:
    """Print a catalogue for people."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    for family, components in families.items():
        console.print(Text(family, style="bold underline"))
        for component in components:
            console.print(Text(f"  {component['name']}", style="bold"), Text(component["summary"]))
            console.print(Padding(Text(f"source: {component['source']}", style="dim"), (0, 0, 0, 4)))
            for field in component["fields"]:
                default = "required" if field["required"] else f"default {field['default']}"
                line = Text(f"{field['name']}", style="cyan")
                line.append(f": {field['type']}, {default}. {field['description']}", style="default")
                console.print(Padding(line, (0, 0, 0, 4)))
        console.print()
