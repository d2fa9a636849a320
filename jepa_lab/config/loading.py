"""From a YAML file and overrides to a validated, frozen `Pipeline`, with every message naming its place."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from jepa_lab.config.documents import (
    Document,
    dump_yaml,
    load_document,
    parse_override,
    place_of_override,
    plain_document,
)
from jepa_lab.config.explanations import explain_all
from jepa_lab.config.fields import component_of, components_of, expand_bare_name, section_of
from jepa_lab.config.pipeline import Pipeline, rebuild_schema
from jepa_lab.config.presets import apply_preset
from jepa_lab.config.provenance import recorded_origins
from jepa_lab.config.yaml_text import Path_, shorten
from jepa_lab.errors import ConfigError, ConfigProblems, JepaLabError, Key

PLUGIN_GROUP = "jepa_lab.components"
HOW_IMAGES_ARE_READ = ("residency", "num_workers", "cache")
"""Keys of `data` that change no result: a run may go on with other ones, on another machine or with less memory."""
_UNDIGESTED: dict[str, Any] = {"seed": True, "tracking": True, "data": set(HOW_IMAGES_ARE_READ)}
"""Keys that tell apart runs of one experiment, or do not change its result."""


@dataclass(frozen=True)
class LoadedPipeline:
    """A validated pipeline and where its values came from."""

    pipeline: Pipeline
    document: Document

    def error(self, key: str, message: str, *also: str) -> ConfigError:
        """An error about the dotted `key`, with the place where its value was written.

        Args:
            also: other keys that the broken rule is about; the place is that of the one that was written last.
        """
        keys = (key, *also)
        return ConfigError(message, keys=[Key(each, "") for each in keys], place=self.place_of(keys))

    def place_of(self, keys: Iterable[str]) -> str:
        """Where the one of some dotted keys that was written last was written."""
        return self.document.latest_place(map(_path, keys))

    @contextmanager
    def located(self, section: str, *also: str) -> Iterator[None]:
        """Give the user's errors raised inside the place of the settings that they are about, unless they have one.

        Their keys are relative to the dotted `section`. One that names no key is about the section and the component
        that the section chooses.

        Args:
            also: other keys that the errors are about, wherever they were written last.
        Raises:
            JepaLabError: that was raised, if its exit code is 2.
        """
        try:
            yield
        except JepaLabError as error:
            if error.exit_code == ConfigError.exit_code:
                error.relate_to(section)
                own = map(_path, error.keys or (error.section or section,))
                paths = own if error.keys else [inner for path in own for inner in self._with_components(path)]
                error.locate(self.document.latest_place([*paths, *map(_path, also)]))
            raise

    def _with_components(self, section: Path_) -> list[Path_]:
        return [*self.document.components_in(section), section]


def _path(key: str) -> Path_:
    return tuple(int(step) if step.isdecimal() else step for step in key.split("."))


def load_pipeline(file: Path, overrides: Sequence[str] = (), preset: str | None = None) -> LoadedPipeline:
    """Read, overlay, override and validate.

    Args:
        overrides: `key=value` as Hydra's users write them, values in YAML; later ones win.
        preset: name of an overlay between the file and the overrides.
    Raises:
        ConfigError: one message that names place, value, rule and remedy of everything that is wrong.
    """
    document = load_document(file)
    document.component_origins = recorded_origins(file)
    if "base" in document.data:
        raise ConfigError(f"this is an ablation; use `jepa-lab sweep {file}`", place=document.place(("base",)))
    return complete_pipeline(document, overrides, preset)


def complete_pipeline(document: Document, overrides: Sequence[str] = (), preset: str | None = None) -> LoadedPipeline:
    """Overlay, override and validate a document that has been read; arguments as for `load_pipeline`.

    Raises:
        ConfigError: as there.
    """
    parsed = [(text, *parse_override(text)) for text in overrides]
    for text, path, _ in parsed:
        if path == ("plugins",):  # imported before the other overrides are written into the document
            document.mark(path, place_of_override(text))
    load_plugins(plugin_names(document, parsed), document)
    expand_components(Pipeline, document.data)
    if preset is not None:
        root_given = any(path == ("data", "root") and value is not None for _, path, value in parsed)
        apply_preset(preset, document, root_given)
        expand_components(Pipeline, document.data)
    for text, path, value in parsed:
        write_override(document, path, value, place_of_override(text))
    return validate(document)


def load_resolved(text: str, origin: str) -> Pipeline:
    """Validate the YAML of a run folder or a checkpoint, which has every value spelled out."""
    document = plain_document(text, origin)
    document.component_origins = recorded_origins(Path(origin))
    load_plugins(plugin_names(document, []), document)
    return validate(document).pipeline


def validate(document: Document) -> LoadedPipeline:
    """Check a document against the schema.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    try:
        return LoadedPipeline(Pipeline.model_validate(document.data), document)
    except ValidationError as error:
        raise ConfigProblems(*explain_all(document, error.errors(include_url=False))) from None


def dump_pipeline(pipeline: Pipeline) -> str:
    """The fully resolved YAML; loading it again gives an equal pipeline."""
    return dump_yaml(pipeline.model_dump(mode="json"))


def config_digest(pipeline: Pipeline) -> str:
    """Hexadecimal digest of all that can change a result but the seed."""
    content = pipeline.model_dump(mode="json", exclude=_UNDIGESTED)
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


def changes_no_result(key: str) -> bool:
    """Whether a run may go on with another value of this dotted key."""
    return key.split(".", maxsplit=1)[0] == "tracking" or key in {f"data.{name}" for name in HOW_IMAGES_ARE_READ}


def reading_images_as(pipeline: Pipeline, given: Pipeline) -> Pipeline:
    """The pipeline with the way in which another one reads its images."""
    reading = {name: getattr(given.data, name) for name in HOW_IMAGES_ARE_READ}
    return pipeline.model_copy(update={"data": pipeline.data.model_copy(update=reading)})


def load_plugins(modules: Iterable[str], document: Document | None = None) -> None:
    """Import components of third parties: entry points first, then the modules named under `plugins`.

    Raises:
        ConfigError: naming the plug-in that cannot be imported, and why.
    """
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        _import_plugin(point.value.partition(":")[0], f"entry point {point.name!r}")
    for module in modules:
        _import_plugin(module, document.place(("plugins",)) if document else "plugins")
    rebuild_schema()


def _import_plugin(module: str, place: str) -> None:
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(
            f"plugins must be names of Python modules, got {shorten(repr(module))}; "
            "write a.b for a/b.py, and name its folder in PYTHONPATH",
            place=place,
        )
    try:
        importlib.import_module(module)
    except ConfigError as error:
        raise ConfigError(f"plug-in {module!r}: {error}", place=place) from error
    except (Exception, SystemExit) as error:  # whatever a plug-in's code raises is reported with its name
        raise ConfigError(
            f"plug-in {module!r} cannot be imported ({type(error).__name__}: {error}); "
            "install it, fix it, name its folder in PYTHONPATH, or remove it from plugins",
            place=place,
        ) from error


def plugin_names(document: Document, overrides: Iterable[tuple[str, Path_, Any]] = ()) -> list[str]:
    """The modules that a document and the overrides on it name under `plugins`.

    Raises:
        ConfigError: not a list of names.
    """
    names = document.data.get("plugins")
    for _, path, value in overrides:
        names = value if path == ("plugins",) else names
    names = [] if names is None else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"plugins must be a list of module names, got {shorten(repr(names))}; write plugins: [my_module]",
            place=document.place(("plugins",)),
        )
    return names


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
        elif components_of(field):
            if key not in data and isinstance(field.default, tuple):
                data[key] = list(field.default)
            if isinstance(data.get(key), list):
                data[key] = [expand_bare_name(item) for item in data[key]]
        section = section_of(field)
        if section is not None and not _optional(field):
            expand_components(section, data.setdefault(key, {}))
        elif section is not None:
            expand_components(section, data.get(key))


def _optional(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def write_override(document: Document, path: Path_, value: Any, place: str) -> None:
    """Write one override; a component's name alone replaces the whole component.

    Args:
        place: where the override was written.
    Raises:
        ConfigError: it would mix two components, or goes into what has no keys.
    """
    here: Any = document.data
    for key in path[:-1]:
        here = here.get(key) if isinstance(here, dict) else None
    outer = ".".join(map(str, path[:-1]))
    if path[-1] == "name" and len(path) > 1 and isinstance(here, dict) and here.get("name") not in (None, value):
        others = sorted(set(here) - {"name"})
        if others:
            raise ConfigError(
                f"would leave {', '.join(others)} of {here['name']!r} beside the new name; "
                f"write {outer}={value} to replace the whole component",
                place=place,
            )
    document.set(path, value, place)
    expand_components(Pipeline, document.data)
