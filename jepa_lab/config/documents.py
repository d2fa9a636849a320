"""YAML documents whose every value knows the file and line, or the override, that it comes from."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from jepa_lab.errors import ConfigError

Path_ = tuple[str | int, ...]


@dataclass
class Document:
    """Plain data and, for each path in it, where it was written.

    Attributes:
        data: mappings, lists and scalars.
        places: path -> `file:line`, `override a.b=c` or `preset smoke`.
        origin: place of what has no line of its own.
    """

    data: dict[str, Any]
    places: dict[Path_, str] = field(default_factory=dict)
    origin: str = "pipeline"

    def place(self, path: Path_) -> str:
        """Where `path`, or the nearest thing around it, was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        inside = [place for known, place in self.places.items() if known[: len(path)] == path]
        return inside[-1] if inside else self.origin  # a section that only an override mentions

    def latest_place(self, paths: Iterable[Path_]) -> str:
        """Where the one of `paths` that an override or preset wrote last, or the first of the file, was written."""
        order = {path: number for number, path in enumerate(self.places, start=1)}  # `set` moves a path to the end
        around = [path[:length] for path in paths for length in range(len(path), 0, -1)]
        written = [path for path in around if path in self.places]
        in_file = f"{self.origin}:"
        latest = max(written, key=lambda path: 0 if self.places[path].startswith(in_file) else order[path], default=())
        return self.places.get(latest, self.origin)

    def place_of_rule(self, path: Path_, message: str, also: Sequence[Path_] = ()) -> str:
        """Where a rule about `path` was broken: a section's error is about the keys that its message names.

        The component that a section chooses counts as named: a data set's error is about `data.dataset` too.

        Args:
            also: paths elsewhere that the rule involves.
        """
        node: Any = self.data
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        section = node if isinstance(node, dict) else {}
        mentions = {key: re.search(rf"\b{re.escape(key)}\b", message) for key in section}
        named = sorted((found.start(), key) for key, found in mentions.items() if found)
        components = [key for key, value in section.items() if isinstance(value, dict) and "name" in value]
        inside = [(*path, key) for key in [*(key for _, key in named), *components]]
        return self.latest_place([*(each for each in inside if each in self.places), path, *also])

    def names_a_place(self, message: str) -> bool:
        """Whether a message begins with a place in this document."""
        return message.startswith(tuple(f"{place}: " for place in (self.origin, *self.places.values())))

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
                raise ConfigError(f"{place}: {outer} is {here!r}, which has no keys; write {outer}=VALUE")
        here[path[-1]] = value
        for old in [known for known in self.places if known[: len(path)] == path]:
            del self.places[old]
        self.places[path] = place


def load_document(file: Path) -> Document:
    """Read a YAML file: numbers such as 1e-3 are numbers, duplicate keys and Python tags are errors.

    Raises:
        ConfigError: naming file and line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file; the shipped ones are under pipelines/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8 text ({error}); give a YAML file") from error
    return plain_document(text, str(file))


def plain_document(text: str, origin: str) -> Document:
    """A document from YAML text that is already in memory.

    Raises:
        ConfigError: naming the line within `origin`.
    """
    tree = parse_yaml(text, origin)
    if not isinstance(tree, CommentedMap):
        raise ConfigError(
            f"{origin}:1: must be a mapping of keys to values, got {_kind(tree)}; see pipelines/digits.yaml"
        )
    document = Document({}, origin=origin)
    document.data = _plain(tree, (), origin, document.places)
    return document


def parse_yaml(text: str, origin: str) -> Any:
    """Parse one YAML document into ruamel's positioned types.

    Raises:
        ConfigError: naming the line within `origin`.
    """
    yaml = YAML(typ="rt", pure=True)
    try:
        tree = yaml.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = str(error.problem).split(" with value")[0]
        raise ConfigError(f"{origin}:{line}: {problem}; keep one of the two") from None
    except (MarkedYAMLError, ConstructorError) as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{origin}:{line}: is not valid YAML ({error.problem}); mend that line") from None
    except (YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{origin}: is not valid YAML ({first}); give a YAML file") from None
    _refuse_tags(tree, origin)
    return tree


def parse_override(text: str) -> tuple[Path_, Any]:
    """`a.b=c` -> path and value, the value parsed as YAML.

    Raises:
        ConfigError: not of that form.
    """
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"override {text!r} must have the form key=value, as in training.epochs=10")
    origin = f"override {text!r}"
    return path, _plain(parse_yaml(value, origin), path, origin, {})


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


def _refuse_tags(node: Any, origin: str) -> None:
    """Tags such as !!python/object are refused: YAML is data."""
    tag = getattr(getattr(node, "tag", None), "value", None)
    if tag and not _is_plain_tag(str(tag)):
        line = node.lc.line + 1 if hasattr(node, "lc") and node.lc.line is not None else 1
        raise ConfigError(f"{origin}:{line}: the tag {tag} is not allowed, a pipeline is plain data; remove the tag")
    if isinstance(node, CommentedMap):
        for value in node.values():
            _refuse_tags(value, origin)
    elif isinstance(node, CommentedSeq):
        for value in node:
            _refuse_tags(value, origin)


def _is_plain_tag(tag: str) -> bool:
    kinds = ("map", "seq", "str", "int", "float", "bool", "null", "merge")
    return tag in {f"tag:yaml.org,2002:{kind}" for kind in kinds}


def _plain(node: Any, path: Path_, origin: str, places: dict[Path_, str]) -> Any:
    """Turn ruamel's types into plain ones and note the line of every key."""
    if isinstance(node, CommentedMap):
        plain = {}
        for key, value in node.items():
            line = node.lc.key(key)[0] + 1 if key in node.lc.data else node.lc.line + 1
            places[(*path, key)] = f"{origin}:{line}"
            if not isinstance(key, str):
                raise ConfigError(f"{origin}:{line}: the key {key!r} must be text; put it in quotes")
            plain[key] = _plain(value, (*path, key), origin, places)
        return plain
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            places[(*path, index)] = f"{origin}:{node.lc.item(index)[0] + 1}"
        return [_plain(value, (*path, index), origin, places) for index, value in enumerate(node)]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    value = getattr(node, "value", node)
    raise ConfigError(
        f"{places.get(path, origin)}: {'.'.join(map(str, path))} is a {type(value).__name__} ({value}), "
        "which no key takes; put it in quotes if text is meant"
    )


def _kind(tree: Any) -> str:
    if tree is None:
        return "an empty file"
    return "a list" if isinstance(tree, CommentedSeq) else repr(tree)
