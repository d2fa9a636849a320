"""YAML text as plain data: which scalars mean what, which texts are refused, and the line of every value."""

from __future__ import annotations

import math
import string
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_lab.config.documents import dump_yaml, parse_override
from jepa_lab.config.yaml_text import MAX_DEPTH, MAX_VALUES, read_yaml
from jepa_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-1", -1), ("+7", 7), ("1_000", 1000), ("0o17", 15),
        ("0x1F", 31), ("010", 10), ("1e999", math.inf), (".inf", math.inf), ("-.INF", -math.inf), ("true", True),
        ("False", False), ("yes", "yes"), ("on", "on"), ("~", None), ("null", None), ("", None), ("'1'", "1"),
        ('"~"', "~"),
        ("12:30:00", "12:30:00"), ("0x", "0x"), ("1.2.3", "1.2.3"), ("_", "_"), ("-_", "-_"), ("1_", "1_"),
        ("1__0", "1__0"), ("._", "._"), ("=", "="),
        ("[1, [2, {a: ~}]]", [1, [2, {"a": None}]]), ("&x 3", 3),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    found = read_yaml(text, "x")[0]
    assert found == value
    assert type(found) is type(value)
    assert math.isnan(read_yaml(".nan", "x")[0])


def test_every_value_knows_its_line() -> None:
    data, places = read_yaml("a: 1\nb:\n  c: [1,\n   2]\n  d: {e: 1}\n", "x")
    assert data == {"a": 1, "b": {"c": [1, 2], "d": {"e": 1}}}
    assert {".".join(map(str, path)): place for path, place in places.items()} == {
        "a": "x:1", "b": "x:2", "b.c": "x:3", "b.c.0": "x:3", "b.c.1": "x:4", "b.d": "x:5", "b.d.e": "x:5",
    }  # fmt: skip


def test_anchors_and_merge_keys_are_written_out_with_the_line_of_the_anchor() -> None:
    data, places = read_yaml("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\nd: {<<: [*a, {z: 4}]}\n", "x")
    assert data["b"] == {"y": 3, "x": 1}
    assert data["c"] == {"x": 1, "y": 2}
    assert data["d"] == {"x": 1, "y": 2, "z": 4}
    assert places["b", "y"] == "x:4"
    assert places["b", "x"] == "x:1"


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
CHAIN = "a0: &a0 []\n" + "".join(f"a{i}: &a{i} {'[' * 40}*a{i - 1}{']' * 40}\n" for i in range(1, 60))
MERGES = f"a: &a {{{', '.join(f'k{i}: 1' for i in range(9000))}}}\nb: {{<<: [{', '.join(['*a'] * 20_000)}]}}\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (LAUGHS, ":", f"more than {MAX_VALUES:,} values"),
        (CHAIN, ":", f"deeper than {MAX_DEPTH} levels"),
        ("a: " + "[" * 100_000, ":1:", "nested deeper"),
        ("a:\n" + "- " * 100_000, ":2:", "nested deeper"),
        ("a: 1\nb: &b [*b]\n", ":2:", "inside its own anchor"),
        ("a: &a {<<: *a}\n", ":1:", "inside its own anchor"),
        ("a: *nowhere\n", ":1:", "no anchor"),
        ("<<: 3\n", ":1:", "<< needs a mapping"),
        ("a: 1\n? [x, {y: 1}]\n: 2\n", ":2:", "a list or a mapping must be text"),
        ("1: 2\n", ":1:", "the key 1 must be text"),
        ("a: 1\n--- \nb: 2\n", ":3:", "second document"),
        ("a: " + "9" * 5000, ":1:", "5000 digits"),
        ("a: !!bool maybe\n", ":1:", "remove the tag"),
        ("a: !!binary '@@'\n", ":1:", "remove the tag"),
        ('a: "\\ud800"\n', ":1:", "control character '\\ud800'"),
        ('a: "\\e[31m"\n', ":1:", "control character '\\x1b'"),
        ('a: "\\0"\n', ":1:", "control character"),
        ('a: "\\U00110000"\n', ": ", "not valid YAML"),
        ('a: "\\UFFFFFFFF"\n', ": ", "not valid YAML"),
        ("%YAML 1.3\n---\na: 1\n", ": ", "not valid YAML"),
        (MERGES, ":2:", "brings more than"),
        ("a: \x07\n", ": ", "not valid YAML"),
        ("a: 1\nb: 2024-99-99\n", ":2:", "b is a date"),
        ("x" * 300_000, ": ", "longer than"),
    ],
    ids=str,
)  # fmt: skip
def test_texts_that_grow_or_hide_something_are_refused_with_their_line(text: str, line: str, words: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "x")
    assert time.process_time() - began < 5
    assert str(caught.value).startswith(f"x{line}")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text", ["", "=", "=x", "a", "a..b=1", ".a=1", "a.=1", ".=", "a.b=[", "x" * 10_000, "a." * 99 + "a=1"]
)
def test_an_override_of_another_form_is_quoted_in_short(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^override '") as caught:
        parse_override(text)
    assert len(str(caught.value)) < 400


def test_the_message_about_an_override_shows_no_password_and_no_line_number() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override("tracking.uri=[http://ann:secret@host")
    assert "secret" not in str(caught.value)
    assert "host': is not valid YAML" in str(caught.value)


keys = st.text(string.ascii_letters, min_size=1)
look_alikes = ["1e5", "0x1", "~", "null", "yes", "2024-01-01", "<<", "=", "*a", "&a", "!x", "1_0", "- a", "a: b", " "]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
    st.sampled_from(look_alikes),
)
plain_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(st.dictionaries(keys, plain_values, min_size=1, max_size=3))
def test_what_is_dumped_is_read_back(data: dict[str, Any]) -> None:
    assert read_yaml(dump_yaml(data), "x")[0] == data
