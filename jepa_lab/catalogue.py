"""What `jepa-lab list` shows: every registered component, read from the registries."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import jepa_lab.config.pipeline
import jepa_lab.figures.runs  # noqa: F401  (both register families)
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


def names_of(families: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The names of a family; of several families each with its family before it."""
    lines = [(family, each["name"]) for family, components in families.items() for each in components]
    return [name if len(families) == 1 else f"{family} {name}" for family, name in lines]


def _fields(params: type[ComponentParams]) -> list[dict[str, Any]]:
    schema = params.model_json_schema()
    definitions = schema.get("$defs", {})
    return [
        {
            "name": name,
            "type": _type_in_words(schema["properties"][name], definitions),
            "range": _range_in_words(schema["properties"][name], definitions),
            "default": None if field.is_required() else schema["properties"][name].get("default"),
            "required": field.is_required(),
            "description": field.description,
        }
        for name, field in params.model_fields.items()
    ]


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or the definition that it refers to."""
    return definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def _choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a union."""
    return schema.get("anyOf") or schema.get("oneOf") or []


def _items(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """What a list is made of: one schema a position, or one for all."""
    return schema.get("prefixItems") or [schema.get("items", {})]


def _type_in_words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    schema = _resolved(schema, definitions)
    if _choices(schema):
        return " | ".join(dict.fromkeys(_type_in_words(choice, definitions) for choice in _choices(schema)))
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        items = ", ".join(_type_in_words(item, definitions) for item in _items(schema))
        return f"[{items}]" if "prefixItems" in schema else f"[{items}, ...]"
    if schema.get("type") == "object" and "properties" in schema:  # a component, or a section of its own
        return str(schema["properties"].get("name", {}).get("const", "section"))
    return str(schema.get("type", "any"))


def _range_in_words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The bounds of a number, or of the numbers of a list; nothing where there are none."""
    schema = _resolved(schema, definitions)
    parts = _choices(schema) or (_items(schema) if schema.get("type") == "array" else [])
    if parts:
        return "; ".join(dict.fromkeys(filter(None, (_range_in_words(part, definitions) for part in parts))))
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {_number_in_words(schema[key])}" for key, sign in bounds.items() if key in schema)


def _number_in_words(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)


def _default_in_words(field: dict[str, Any]) -> str:
    return "required" if field["required"] else json.dumps(field["default"])


def print_catalogue(families: dict[str, list[dict[str, Any]]]) -> None:
    """Print a catalogue for people."""
    from rich.console import Console

    from jepa_lab.tables.terminal import print_hanging

    console = Console(highlight=False)
    for family, components in families.items():
        console.print(family, style="bold underline", markup=False)
        for component in components:
            print_hanging(component["name"], f" {component['summary']}", console, indent=2, style="bold")
            print_hanging("source:", f" {component['source']}", console, indent=4, style="dim")
            for field in component["fields"]:
                kind = " ".join(filter(None, (field["type"], field["range"])))
                default = ("" if field["required"] else "default ") + _default_in_words(field)
                text = f": {kind}, {default}. {field['description']}"
                print_hanging(field["name"], text, console, indent=4, style="cyan")
        console.print()


HEADER = """\
# Components

Everything that a pipeline or an ablation names, as `jepa-lab list` shows it. Written by `make schema` from the
registries: a change here is lost, one in a component's file is not.
"""


def catalogue_as_markdown(families: dict[str, list[dict[str, Any]]]) -> str:
    """A catalogue as a page: a section a family, and under each component a table of its parameters."""
    parts = [HEADER, "\n", *(_link_line(family, components) for family, components in families.items())]
    for family, components in families.items():
        parts.append(f"\n## {family}\n\n{_about(family)}\n")
        parts += [_component_as_markdown(component) for component in components]
    return "".join(parts)


def _link_line(family: str, components: list[dict[str, Any]]) -> str:
    names = ", ".join(f"`{component['name']}`" for component in components)
    return f"- [{family}](#{family}): {names}\n"


def _about(family: str) -> str:
    """What a family is: the first sentence of its base class."""
    return " ".join((inspect.getdoc(FAMILIES[family].base) or "").split("\n\n")[0].split())


def _component_as_markdown(component: dict[str, Any]) -> str:
    lines = [f"### {component['name']}", "", component["summary"], "", f"Source: {component['source']}"]
    if component["fields"]:
        lines += ["", "| parameter | type | default | range | what it is |", "| --- | --- | --- | --- | --- |"]
    for field in component["fields"]:
        default = _default_in_words(field)
        cells = (f"`{field['name']}`", field["type"], default, field["range"], field["description"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    text = "\n" + "\n".join(lines) + "\n"
    return re.sub(r"<(?=\w)", r"\\<", text)  # <class> is a name here, no HTML
