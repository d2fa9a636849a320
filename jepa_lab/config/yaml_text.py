"""YAML text as plain data with the line of every value: mappings, lists, text, numbers, truth values, null.

Built on the events of ruamel's parser, with the scalars of YAML 1.2's core schema read here. Tags, dates, keys that
are no text, and texts that would grow without bound (aliases of aliases, deep nesting) are refused with their line;
nothing that a file says can call anything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, Event, MappingStartEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.credentials import scrub

Path_ = tuple[str | int, ...]

MAX_CHARACTERS = 1 << 18
MAX_DEPTH = 50
MAX_VALUES = 20_000
"""Counted after aliases are written out: ten lines of aliases of aliases mean billions of values."""
MAX_DIGITS = 400
"""More than any finite float has before its point."""

_BROKEN_TEXT = (ValueError, OverflowError, AssertionError)
"""What ruamel raises of Python's own: for characters beyond Unicode, and for versions of YAML that there are not."""

_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels, a pipeline needs five; write fewer"

_INTEGER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.([0-9]+(_[0-9]+)*)?)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass
class _Node:
    """A value before aliases are written out: a scalar, a list of nodes, or (key, line, node) triples."""

    line: int
    value: Any
    finished: bool = True


def read_yaml(text: str, origin: str, path: Path_ = (), *, lines: bool = True) -> tuple[Any, dict[Path_, str]]:
    """Parse one YAML document.

    Args:
        origin: begins every place: a file, or an override.
        path: of the value in the pipeline; only for messages and places.
        lines: whether places have a line; that of an override says nothing.
    Returns:
        Plain data, and the place (`origin:line`) of each path in it.
    Raises:
        ConfigError: naming the line within `origin`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"is longer than {MAX_CHARACTERS:,} characters, a pipeline has a few thousand; give a pipeline",
            place=origin,
        )
    reader = _Reader(origin, lines)
    try:
        node = reader.read(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise reader.error(line, f"is not valid YAML ({error.problem}); fix that line") from None
    except (YAMLError, *_BROKEN_TEXT) as error:  # a character or version that no YAML has: without a line
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"is not valid YAML ({first}); give a YAML file", place=origin) from None
    return reader.plain(node, path), reader.places


@dataclass
class _Reader:
    origin: str
    lines: bool
    places: dict[Path_, str] = field(default_factory=dict)
    anchors: dict[str, _Node] = field(default_factory=dict)
    num_values: int = 0
    num_merged: int = 0

    def read(self, events: Iterator[Event]) -> _Node:
        """The one document among the events."""
        root: _Node | None = None
        for event in events:
            if not isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent | AliasEvent):
                continue  # begins and ends of the stream and of documents
            if root is not None:
                raise self.error(_line(event), "a second document begins; keep one document")
            root = self._node(event, events, depth=0)
        return root or _Node(1, None)

    def _node(self, event: Any, events: Iterator[Event], depth: int) -> _Node:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise self.error(line, _TOO_DEEP)
        if isinstance(event, AliasEvent):
            return self._aliased(event.anchor, line)
        if event.tag is not None:
            raise self.error(
                line, f"the tag {_shown(str(event.tag))} is not allowed, a pipeline is plain data; remove the tag"
            )
        node = _Node(line, None, finished=False)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        if isinstance(event, ScalarEvent):
            node.value = self._scalar(event, line)
        elif isinstance(event, SequenceStartEvent):
            node.value = []
            while not isinstance(inner := next(events), SequenceEndEvent):
                node.value.append(self._node(inner, events, depth + 1))
        else:
            node.value = tuple(self._pairs(events, depth))
        node.finished = True
        return node

    def _aliased(self, anchor: str, line: int) -> _Node:
        if anchor not in self.anchors:
            raise self.error(line, f"the alias *{_shown(anchor)} has no anchor before it; write the value itself")
        node = self.anchors[anchor]
        if not node.finished:
            raise self.error(line, f"the alias *{_shown(anchor)} stands inside its own anchor; write the value itself")
        return node

    def _pairs(self, events: Iterator[Event], depth: int) -> Iterator[tuple[str, int, _Node]]:
        """Key, its line and value of each entry of a mapping; `<<` brings entries that are not its own."""
        own: dict[str, tuple[str, int, _Node]] = {}
        merged: list[_Node] = []
        while isinstance(event := next(events), ScalarEvent | SequenceStartEvent | MappingStartEvent | AliasEvent):
            line, is_merge = _line(event), isinstance(event, ScalarEvent) and event.value == "<<" and not event.style
            key = "<<" if is_merge else self._key(self._node(event, events, depth + 1), line)
            value = self._node(next(events), events, depth + 1)
            if is_merge:
                merged += value.value if isinstance(value.value, list) else [value]
            elif key in own:
                raise self.error(line, f"duplicate key {_shown(key)}; keep one of the two")
            else:
                own[key] = (key, line, value)
        for source in merged:
            if not isinstance(source.value, tuple):
                raise self.error(source.line, "<< needs a mapping, as in <<: *anchor; write the keys themselves")
            self.num_merged += len(source.value)
            if self.num_merged > MAX_VALUES:
                raise self.error(line, f"<< brings more than {MAX_VALUES:,} keys here; write the keys themselves")
            for entry in source.value:
                own.setdefault(entry[0], entry)
        yield from own.values()

    def _key(self, node: _Node, line: int) -> str:
        if not isinstance(node.value, str):
            what = "a list or a mapping" if isinstance(node.value, list | tuple) else repr(node.value)
            raise self.error(line, f"the key {what} must be text; put it in quotes")
        return node.value

    def _scalar(self, event: Any, line: int) -> Any:
        text: str = event.value
        bad = next((letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs")), None)
        if bad is not None and "\udc80" <= bad <= "\udcff":  # how Python hands over bytes of a command line
            raise self.error(
                line, f"the text {_shown(text)} is not in this locale's encoding; set PYTHONUTF8=1 and write UTF-8"
            )
        if bad is not None:
            raise self.error(line, f"the text {_shown(text)} holds the control character {bad!r}; remove it")
        if event.style:  # in quotes
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _DATE.fullmatch(text):
            return _Date(text)
        if len(text) > MAX_DIGITS and (_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text)):
            raise self.error(line, f"the number {_shown(text)} has {len(text)} digits; write a shorter one")
        if _INTEGER.fullmatch(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _FLOAT.fullmatch(text):
            return float(text.replace("_", ""))
        return float(text.replace(".", "")) if _INFINITE.fullmatch(text) else text

    def plain(self, node: _Node, path: Path_) -> Any:
        """The node as plain data, aliases written out; notes the places of the paths below `path`."""
        self.num_values += 1
        if len(path) > MAX_DEPTH:
            raise self.error(node.line, _TOO_DEEP)
        if self.num_values > MAX_VALUES:
            raise self.error(node.line, f"holds more than {MAX_VALUES:,} values, its aliases written out; shorten it")
        if isinstance(node.value, tuple):
            plain = {}
            for key, line, value in node.value:
                self.places[(*path, key)] = self.place(line)
                plain[key] = self.plain(value, (*path, key))
            return plain
        if isinstance(node.value, list):
            for index, value in enumerate(node.value):
                self.places[(*path, index)] = self.place(value.line)
            return [self.plain(value, (*path, index)) for index, value in enumerate(node.value)]
        if isinstance(node.value, _Date):
            place, key = self.places.get(path, self.origin), _shown(".".join(map(str, path)))
            raise ConfigError(
                f"{key} is a date ({node.value}), which no key takes; put it in quotes if text is meant", place=place
            )
        return node.value

    def error(self, line: int, problem: str) -> ConfigError:
        """The error of a line."""
        return ConfigError(problem, place=self.place(line))

    def place(self, line: int) -> str:
        """Where a line is, for people."""
        return f"{self.origin}:{line}" if self.lines else self.origin


@dataclass(frozen=True)
class _Date:
    text: str

    def __repr__(self) -> str:
        return self.text


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _shown(text: str) -> str:
    """A piece of the file for a message: short, without credentials, and without what a terminal would obey."""
    return shorten(scrub(text if text.isprintable() else repr(text)))


def shorten(text: str, length: int = 80) -> str:
    """At most `length` characters of a text."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
