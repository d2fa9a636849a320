"""YAML documents whose every value knows the file and line, or the override, that it comes from."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from jepa_lab.config.yaml_text import MAX_CHARACTERS, MAX_DEPTH, Path_, read_yaml, shorten
from jepa_lab.errors import ConfigError
from jepa_lab.tracking.credentials import scrub


@dataclass
class Document:
    """Plain data and, for each path in it, where it was written.

    Attributes:
        data: mappings, lists and scalars.
        places: path -> `file:line`, `override a.b=c` or `preset smoke`.
        origin: place of what has no line of its own.
        written_over: the paths that an override or a preset wrote after the document's own text.
        component_origins: where the components of a run's configuration came from, see `recorded_origins`.
    """

    data: dict[str, Any]
    places: dict[Path_, str] = field(default_factory=dict)
    origin: str = "pipeline"
    written_over: set[Path_] = field(default_factory=set)
    component_origins: dict[str, dict[str, str | None]] = field(default_factory=dict)

    def place(self, path: Path_) -> str:
        """Where `path`, or the nearest thing around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        inside = [place for known, place in self.places.items() if known[: len(path)] == path]
        return inside[-1] if inside else self.origin  # a section that only an override mentions

    def latest_place(self, paths: Iterable[Path_]) -> str:
        """Where the one of `paths` that an override or preset wrote last, or the first of the file, was written."""
        order = {path: number for number, path in enumerate(self.places, start=1)}  # `mark` moves a path to the end
        around = [path[:length] for path in paths for length in range(len(path), 0, -1)]
        written = [path for path in around if path in self.places]
        latest = max(written, key=lambda path: order[path] if path in self.written_over else 0, default=())
        return self.places.get(latest, self.origin)

    def place_of_section(self, path: Path_) -> str:
        """Where a rule about a whole section was broken: what was written last of the section."""
        return self.latest_place([*(known for known in self.places if known[: len(path)] == path), path])

    def components_in(self, path: Path_) -> list[Path_]:
        """The paths of a section's own components, such as the data set of `data`."""
        node: Any = self.data
        for key in path:
            known = node if isinstance(node, dict) else range(len(node) if isinstance(node, list) else 0)
            node = node[key] if key in known else None
        section = node if isinstance(node, dict) else {}
        return [(*path, key) for key, value in section.items() if isinstance(value, dict) and "name" in value]

    def set(self, path: Path_, value: Any, place: str) -> None:
        """Write a value, making the mappings on the way.

        Raises:
            ConfigError: something on the way is not a mapping.
        """
        here: Any = self.data
        for depth, key in enumerate(path[:-1], start=1):
            if key in here and here[key] is None:
                here[key] = {}
            here = here.setdefault(key, {})
            if not isinstance(here, dict):
                outer = ".".join(map(str, path[:depth]))
                raise ConfigError(
                    f"{outer} is {shorten(repr(here))}, which has no keys; write {outer}=VALUE", place=place
                )
        here[path[-1]] = value
        for old in [known for known in self.places if known[: len(path)] == path]:
            del self.places[old]
        self.mark(path, place)

    def mark(self, path: Path_, place: str) -> None:
        """Note where a value was written over what the document's own text says."""
        self.places.pop(path, None)
        self.places[path] = place
        self.written_over.add(path)


def load_document(file: Path) -> Document:
    """Read a YAML file: numbers such as 1e-3 are numbers, duplicate keys and tags are errors.

    Raises:
        ConfigError: naming file and line.
    """
    return plain_document(_read_text(file), str(file))


def _read_text(file: Path) -> str:
    """The content of a file, or of a pipe such as /dev/stdin; no more than a pipeline can have."""
    try:
        with open(file, "rb") as stream:
            content = stream.read(4 * MAX_CHARACTERS + 1)
        # Without the byte order mark that some editors write.
        return content.decode("utf-8-sig") if len(content) <= 4 * MAX_CHARACTERS else " " * (MAX_CHARACTERS + 1)
    except FileNotFoundError:
        hint = ", or give /dev/stdin to read the standard input" if str(file) == "-" else ""
        raise ConfigError(
            f"there is no such file; those that come with jepa-lab have names, as in `jepa-lab run digits`{hint}",
            place=str(file),
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            f"is a folder; give a YAML file in it, or `--resume {file}` for a run", place=str(file)
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot be read as UTF-8 text ({reason}); give a YAML file", place=str(file)) from error


def plain_document(text: str, origin: str) -> Document:
    """A document from YAML text that is already in memory.

    Raises:
        ConfigError: naming the line within `origin`.
    """
    data, places = read_yaml(text, origin)
    if not isinstance(data, dict):
        raise ConfigError(
            f"must be a mapping of keys to values, got {_kind(data)}; see pipelines/digits.yaml", place=f"{origin}:1"
        )
    return Document(data, places, origin)


def parse_override(text: str) -> tuple[Path_, Any]:
    """`a.b=c` -> path and value, the value parsed as YAML.

    Raises:
        ConfigError: not of that form.
    """
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    origin = place_of_override(text)
    if not equals or not all(path) or len(path) > MAX_DEPTH:
        raise ConfigError(f"{origin} must have the form key=value, as in training.epochs=10")
    return path, read_yaml(value, origin, path, lines=False)[0]


def place_of_override(text: str) -> str:
    """How messages name an override: short, without credentials."""
    return f"override {shorten(scrub(text), 200)!r}"


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML for people: lists on one line, a component's name first, null written out."""
    yaml = YAML()
    yaml.width = 110
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    stream = io.StringIO()
    yaml.dump(_for_people(data), stream)
    return stream.getvalue()


def _for_people(node: Any) -> Any:
    if isinstance(node, dict):
        names = sorted(node, key=lambda key: key != "name")  # stable: the rest keeps its order
        return {key: _for_people(node[key]) for key in names}
    if isinstance(node, list):
        line = CommentedSeq(_for_people(value) for value in node)
        line.fa.set_flow_style()
        return line
    return node


def _kind(tree: Any) -> str:
    if tree is None:
        return "an empty file"
    return "a list" if isinstance(tree, list) else shorten(repr(tree))
