"""From a YAML file and overrides to a validated, frozen `Pipeline`, with every message naming its place."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from jepa_lab.config.documents import Document, Path_, dump_yaml, load_document, parse_override, plain_document
from jepa_lab.config.fields import Component, expand_bare_name
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.presets import apply_preset
from jepa_lab.errors import ConfigError
from jepa_lab.registry import did_you_mean
from jepa_lab.tracking.credentials import scrub

PLUGIN_GROUP = "jepa_lab.components"
_UNDIGESTED = ("seed", "tracking")
"""Keys that tell apart runs of one experiment, or do not change its result."""


@dataclass(frozen=True)
class LoadedPipeline:
    """A validated pipeline and where its values came from."""

    pipeline: Pipeline
    document: Document

    def error(self, key: str, message: str) -> ConfigError:
        """An error about the dotted `key`, with the place where its value was written."""
        return ConfigError(f"{self.document.place(tuple(key.split('.')))}: {message}")


def load_pipeline(file: Path, overrides: Sequence[str] = (), preset: str | None = None) -> LoadedPipeline:
    """Read, overlay, override and validate.

    Args:
        overrides: `key=value` as Hydra's users write them, values in YAML; later ones win.
        preset: name of an overlay between the file and the overrides.
    Raises:
        ConfigError: one message that names place, value, rule and remedy of everything that is wrong.
    """
    document = load_document(file)
    parsed = [(text, *parse_override(text)) for text in overrides]
    load_plugins(_plugin_names(document, parsed), document)
    expand_components(Pipeline, document.data)
    if preset is not None:
        root_given = any(path == ("data", "root") and value is not None for _, path, value in parsed)
        apply_preset(preset, document, root_given)
        expand_components(Pipeline, document.data)
    for text, path, value in parsed:
        _override(document, text, path, value)
    return validate(document)


def load_resolved(text: str, origin: str) -> Pipeline:
    """Validate the YAML of a run folder or a checkpoint, which has every value spelled out."""
    document = plain_document(text, origin)
    load_plugins(_plugin_names(document, []), document)
    return validate(document).pipeline


def validate(document: Document) -> LoadedPipeline:
    """Check a document against the schema.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    try:
        return LoadedPipeline(Pipeline.model_validate(document.data), document)
    except ValidationError as error:
        lines = [_explain(document, detail) for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def dump_pipeline(pipeline: Pipeline) -> str:
    """The fully resolved YAML; loading it again gives an equal pipeline."""
    return dump_yaml(pipeline.model_dump(mode="json"))


def config_digest(pipeline: Pipeline) -> str:
    """Hexadecimal digest of all that can change a result but the seed."""
    content = pipeline.model_dump(mode="json", exclude=set(_UNDIGESTED))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def flat_items(pipeline: Pipeline) -> dict[str, Any]:
    """Every value by its dotted key; lists stay whole."""
    found: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        else:
            found[path] = value

    walk(pipeline.model_dump(mode="json"), "")
    return found


def changed_keys(first: Pipeline, second: Pipeline) -> list[str]:
    """Dotted keys in which two pipelines differ."""
    before, now = flat_items(first), flat_items(second)
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def load_plugins(modules: Iterable[str], document: Document | None = None) -> None:
    """Import components of third parties: entry points first, then the modules named under `plugins`.

    Raises:
        ConfigError: naming the plug-in that cannot be imported, and why.
    """
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        _import_plugin(point.value.partition(":")[0], f"entry point {point.name!r}")
    for module in modules:
        _import_plugin(module, document.place(("plugins",)) if document else "plugins")
    Pipeline.model_rebuild(force=True)


def _import_plugin(module: str, place: str) -> None:
    try:
        importlib.import_module(module)
    except ConfigError as error:
        raise ConfigError(f"{place}: plug-in {module!r}: {error}") from error
    except Exception as error:  # whatever a plug-in's code raises is reported with its name
        raise ConfigError(
            f"{place}: plug-in {module!r} cannot be imported ({type(error).__name__}: {error}); "
            "install it, mend it, or remove it from plugins"
        ) from error


def _plugin_names(document: Document, overrides: list[tuple[str, Path_, Any]]) -> list[str]:
    names = document.data.get("plugins")
    for _, path, value in overrides:
        names = value if path == ("plugins",) else names
    names = [] if names is None else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{document.place(('plugins',))}: plugins must be a list of module names, got {names!r}")
    return names


def component_of(field: FieldInfo) -> Component | None:
    """The registry that a field is filled from, if it is."""
    return next((mark for mark in field.metadata if isinstance(mark, Component)), None)


def expand_components(model: type[BaseModel], data: Any) -> None:
    """Write `name: multi_block` as `{name: multi_block}` and fill in default components, in place.

    Overrides such as masker.num_targets=2 then have a mapping to go into, whatever the file wrote.
    """
    if not isinstance(data, dict):
        return
    for key, field in model.model_fields.items():
        if component_of(field):
            if key not in data and isinstance(field.default, str):
                data[key] = field.default
            if key in data:
                data[key] = expand_bare_name(data[key])
        section = section_of(field)
        if section is not None and not _optional(field):
            expand_components(section, data.setdefault(key, {}))
        elif section is not None:
            expand_components(section, data.get(key))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a plain section (`data`, `training`), not a component."""
    if component_of(field):
        return None
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _optional(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def _override(document: Document, text: str, path: Path_, value: Any) -> None:
    """Write one override; a component's name alone replaces the whole component."""
    place = f"override {scrub(text)!r}"
    here: Any = document.data
    for key in path[:-1]:
        here = here.get(key) if isinstance(here, dict) else None
    outer = ".".join(map(str, path[:-1]))
    if path[-1] == "name" and len(path) > 1 and isinstance(here, dict) and here.get("name") not in (None, value):
        others = sorted(set(here) - {"name"})
        if others:
            raise ConfigError(
                f"{place}: would leave {', '.join(others)} of {here['name']!r} beside the new name; "
                f"write {outer}={value} to replace the whole component"
            )
    document.set(path, value, place)
    expand_components(Pipeline, document.data)


def _explain(document: Document, detail: ErrorDetails) -> str:
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
