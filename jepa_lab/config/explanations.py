"""What pydantic found wrong, in words for the user: place, field, rule, value and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from jepa_lab.config.documents import Document, Path_
from jepa_lab.config.fields import Component, Components, component_of, components_of, section_of
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.provenance import missing_origin
from jepa_lab.config.yaml_text import shorten
from jepa_lab.errors import Problem
from jepa_lab.registry import BROKEN_RULE, did_you_mean
from jepa_lab.tracking.credentials import scrub

_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "an integer"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "a section of keys and values"),
    "string_type": "text",
    "finite_number": "a finite number",
}
"""Pydantic's kinds of wrong types, in words."""

_WRITE_ONE = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "write one, such as 4"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "write one, such as 0.5"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "write one of the two"),
    **dict.fromkeys(("tuple_type", "list_type"), "write its values in brackets, as in [0.5, 1.0]"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "write its keys below it, or leave it out"),
    "string_type": "put it in quotes if text is meant",
}

_REMEDIES = {
    **dict.fromkeys(("greater_than", "greater_than_equal"), "raise it"),
    **dict.fromkeys(("less_than", "less_than_equal"), "lower it"),
    "too_short": "add values",
    "too_long": "remove values",
    "string_too_short": "write at least that many",
    "string_too_long": "shorten it",
    "string_pattern_mismatch": "choose another",
    "huge_integer": "write a smaller number",
}

MAX_LINES = 20


def explain_all(
    document: Document, details: Sequence[ErrorDetails], root: type[BaseModel] = Pipeline
) -> tuple[str, ...]:
    """Every validation error as a line; of very many, the first.

    Args:
        root: the schema that the document was validated against.
    """
    return first_lines(explain(document, detail, root) for detail in details)


def first_lines(problems: Iterable[str]) -> tuple[str, ...]:
    """Problems, each once; of very many, the first."""
    lines = list(dict.fromkeys(problems))
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES} more problems; fix these first"]
    return tuple(lines)


def explain(document: Document, detail: ErrorDetails, root: type[BaseModel] = Pipeline) -> str:
    """One validation error as place, field, rule, value and remedy."""
    path, field, parent = _resolve(detail["loc"], root)
    key = shorten(".".join(map(str, path)))
    place = document.place(path)
    value = detail.get("input")
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = list(parent.model_fields) if parent is not None else []
        return f"{place}: unknown key {key}{did_you_mean(str(path[-1]), known)}"
    if kind == "missing":
        return f"{place}: {key} is missing; add it. {_describe(field)}".rstrip()
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"{place}: {_explain_component(document, key, field, value, context)}"
    if kind == BROKEN_RULE:
        problem: Problem = context["problem"]
        keys = [(*path, each.name) for each in problem.keys]
        return f"{document.latest_place([*keys, path])}: {problem.of(key)}"
    if kind == "value_error":  # of a plug-in, which does not say what it is about: the field or the whole section
        return f"{document.place_of_section(path)}: {key + ': ' if key else ''}{context['error']}"
    rule, remedy = _rule(detail), _remedy(key, field, detail)
    end = "" if remedy.endswith("?") else "."
    return f"{place}: {key} {rule}, got {_short(value)}; {remedy}{end} {_describe(field)}".rstrip()


def _rule(detail: ErrorDetails) -> str:
    """What the value breaks, as "must ..."."""
    if detail["type"] in _KINDS:
        return f"must be {_KINDS[detail['type']]}"
    rule = detail["msg"][0].lower() + detail["msg"][1:]
    words = {"input should be": "must be", "input should": "must", "string should": "must", "tuple should": "must"}
    start = next((start for start in words if rule.startswith(start)), "")
    return words.get(start, "") + rule.removeprefix(start)


def _remedy(key: str, field: FieldInfo | None, detail: ErrorDetails) -> str:
    """What to write instead."""
    kind = detail["type"]
    if kind in _REMEDIES:
        return _REMEDIES[kind]
    if kind == "literal_error":
        choices = sorted(_literals(None if field is None else field.annotation))
        near = did_you_mean(str(detail.get("input")), choices)
        return near.removeprefix("; ") if "did you mean" in near else "choose one of these"
    example = None if field is None else field.get_default(call_default_factory=False)
    in_list = key.rpartition(".")[2].isdecimal()
    if not in_list and isinstance(example, bool | int | float | str | tuple):
        return f"write one, as in {key}={_as_yaml(example)}"
    return _WRITE_ONE.get(kind, "see `jepa-lab schema`")


def _literals(annotation: Any) -> set[str]:
    """The texts that an annotation lists: of `Literal["a", "b"] | None` a and b."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return {part for part in parts if isinstance(part, str)}
    return set().union(*map(_literals, parts))


def _as_yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _explain_component(
    document: Document, key: str, field: FieldInfo | None, value: Any, context: dict[str, Any]
) -> str:
    mark = _registry_mark(field)
    if mark is None:
        return f"{key} has the value {_short(value)}, which fits nothing; see `jepa-lab schema`"
    if "tag" in context:
        known = missing_origin(document.component_origins, mark.registry.family, context["tag"])
        near = did_you_mean(context["tag"], mark.registry.names()) if known is None else known
        return f"unknown {mark.registry.family} {_short(context['tag'])} for {key}{near}"
    return f"{key} needs a name, got {_short(value)}; known: {', '.join(mark.registry.names())}"


def _resolve(
    location: tuple[int | str, ...], root: type[BaseModel]
) -> tuple[Path_, FieldInfo | None, type[BaseModel] | None]:
    """A pydantic location without the union tags, the field it ends at, and the model that holds that field."""
    model: type[BaseModel] | None = root
    parent = model
    path: list[int | str] = []
    field: FieldInfo | None = None
    rest = list(location)
    while rest:
        step = rest.pop(0)
        path.append(step)
        parent = model
        field = model.model_fields.get(str(step)) if model is not None else None
        model = section_of(field) if field is not None else None
        if field is not None and model is not None and get_origin(field.annotation) is dict and rest:
            path.append(rest.pop(0))  # a mapping of sections: the next step is a key of the user's
        mark = _registry_mark(field)
        if isinstance(mark, Components) and rest:
            path.append(rest.pop(0))  # the number of the item
        if mark is not None and rest and rest[0] in mark.registry:
            model = mark.registry.get(str(rest.pop(0))).config_type
    return tuple(path), field, parent


def _registry_mark(field: FieldInfo | None) -> Component | Components | None:
    """The mark of a field that is filled from a registry."""
    return None if field is None else component_of(field) or components_of(field)


def _describe(field: FieldInfo | None) -> str:
    return field.description or "" if field is not None else ""


def _short(value: Any) -> str:
    return shorten(scrub(repr(value)))  # a tracking URI may hold a password
