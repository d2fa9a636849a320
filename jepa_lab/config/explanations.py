"""What pydantic found wrong, in words for the user: place, field, rule, value and remedy."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from jepa_lab.config.documents import Document, Path_
from jepa_lab.config.fields import component_of, section_of
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.registry import did_you_mean
from jepa_lab.tracking.credentials import scrub


def explain(document: Document, detail: ErrorDetails) -> str:
    """One validation error as place, field, rule, value and remedy."""
    path, field, parent = _resolve(detail["loc"])
    key = ".".join(map(str, path))
    place = document.place(path)
    value = detail.get("input")
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = list(parent.model_fields) if parent is not None else []
        return f"{place}: unknown key {key}{did_you_mean(str(path[-1]), known)}"
    if kind == "missing":
        return f"{place}: {key} is missing; add it. {_describe(field)}".rstrip()
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"{place}: {_explain_component(key, field, value, context)}"
    if kind == "value_error":
        place = document.place_of_rule(path, detail["msg"])
        message = detail["msg"].removeprefix("Value error, ")
        return f"{place}: {key + ': ' if key else ''}{message}"
    rule = detail["msg"][0].lower() + detail["msg"][1:]
    rule = rule.replace("input should be", "must be").replace("string should match", "must match")
    return f"{place}: {key} {rule}, got {_short(value)}. {_describe(field)}".rstrip()


def _explain_component(key: str, field: FieldInfo | None, value: Any, context: dict[str, Any]) -> str:
    mark = component_of(field) if field else None
    if mark is None:
        return f"{key} has the value {_short(value)}, which fits nothing; see `jepa-lab schema`"
    if "tag" in context:
        near = did_you_mean(context["tag"], mark.registry.names())
        return f"unknown {mark.registry.family} {context['tag']!r} for {key}{near}"
    return f"{key} needs a name, got {_short(value)}; known: {', '.join(mark.registry.names())}"


def _resolve(location: tuple[int | str, ...]) -> tuple[Path_, FieldInfo | None, type[BaseModel] | None]:
    """A pydantic location without the union tags, the field it ends at, and the model that holds that field."""
    model: type[BaseModel] | None = Pipeline
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
        mark = component_of(field) if field is not None else None
        if mark is not None and rest and rest[0] in mark.registry:
            model = mark.registry.get(str(rest.pop(0))).config_type
    return tuple(path), field, parent


def _describe(field: FieldInfo | None) -> str:
    return field.description or "" if field is not None else ""


def _short(value: Any) -> str:
    text = scrub(repr(value))  # a tracking URI may hold a password
    return text if len(text) <= 80 else text[:77] + "..."
