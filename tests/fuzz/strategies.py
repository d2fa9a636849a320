"""What people and accidents write into pipeline files and overrides, as hypothesis strategies."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any, get_args

from hypothesis import strategies as st

from jepa_lab.config.documents import plain_document
from jepa_lab.config.fields import component_of, section_of
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.registry import FAMILIES

ROOT = Path(__file__).parents[2]
SHIPPED = {file.stem: file.read_text(encoding="utf-8") for file in sorted((ROOT / "pipelines").glob("*.yaml"))}
TREES = {name: plain_document(text, name).data for name, text in SHIPPED.items()}

TOKENS = [
    "", "~", "null", "true", "-1", "0", "1", "3", "1.5", "0.5", "1e-3", "1e999", "-1e999", ".nan", ".inf",
    "-.inf", "0x1F", "0x", "0o17", "0777", "1_000", "_", "-_", "._", "0x_", "1__0", "+", "2024-01-01",
    "2024-99-99", "12:30:00", "yes", "Off", "10" * 8, "9" * 25, "9" * 450, "1e308", "-1e308", "1e-320",
    "9223372036854775807", "9223372036854775808", "100000", "1000000000", "1000000000000", "[]", "{}", "[1, 2]",
    "[0.1, 0.9]", "[0.9, 0.1]", "[[1], [2]]", "[a, b]", "[~]", "{a: 1}", "{name: 1}", "{name: []}", "{name: {}}",
    "{name: multi_block}", "{name: custom}", "{a: {b: {c: {d: 1}}}}", "[" * 60 + "]" * 60, "[" * 5000, "&a [*a]",
    "&a {<<: *a}", "*nowhere", "&x 3", "!!python/object/apply:os.getcwd []", "!!bool maybe", "!!int x",
    "!!float {}", "!!set {a}", "!!binary aGk=", "! x", "!<tag:x> 1", "'", '"', '"\\', "'a'", '"\\ud800"',
    '"\\0"', '"\\x1b[31m"', '"\\U00110000"', "|", ">9", "|\n  text", "- a", "? [a]", "a: b", ": :", "%", "@x",
    "`", "#", "# comment", "multi_block", "random", "digits", "synthetic", "cifar10", "custom", "half", "rope",
    "learned", "none", "mlflow", "linear", "../../etc/passwd", "/etc/passwd", "C:\\x", "CON", "a" * 300,
    "a" * 20000, "\u0430dam", "\u202ename", "\u5b57", "\U0001f600", "e\u0301", "\u00a0", "\ufeff", "\u2028",
    "x\ty", "\t", "<<", "=", "${HOME}", "$(id)", "{{ x }}", "cpu", "cuda", "cuda:99", "mps", "meta", "cuda:-1",
    "cpu:1", "os", "os.path", ".", "a..b", "a b",
]  # fmt: skip
LINES = [
    "seed: 1", "<<: {seed: 3}", "<<: [1]", "<<: *a", "x: &a {seed: 1}", "---", "...", "%YAML 1.1", "\tseed: 1",
    "  seed: 1", "- 1", "1: 2", "~: 1", "[a]: 1", "{a: b}: 1", "? x", "data: 3", "data:", "masker: [random]",
    "plugins: [no_such_module]", "plugins: ['']", "plugins: [.]", "plugins: 3", "plugins: {a: 1}", "masked: 1",
    "name: twice", "probe: ~", "training: []", "}", "]", "a: 'b", "\x00", "\x07", "\x85", "\u2028", "\ufffe",
    "encoder: {size: {name: custom}}", "masker: {name: {name: random}}",
]  # fmt: skip
KEYS = [
    "seed", "name", "plugins", "data", "data.root", "data.dataset", "data.image_size", "data.max_images",
    "data.channel_mean", "masker", "masker.name", "masker.num_targets", "masker.target_scale", "encoder",
    "encoder.size", "encoder.size.name", "encoder.size.embed_dim", "encoder.size.depth", "encoder.patch_size",
    "encoder.position", "predictor.size", "loss", "predictor.target_sequences", "target", "ema_momentum",
    "optimizer.learning_rate", "optimizer.betas", "training", "training.epochs", "training.batch_size",
    "training.device", "training.precision", "training.accumulation_steps", "training.num_threads",
    "probe.method.c_grid", "probe.data", "probe.layers", "probe.method", "probe.additional", "tracking", "tracking.uri",
    "tracking.experiment", "optimizer.warmup_epochs", "optimizer.schedule_stretch", "collapse.patience",
    "masker.target_scale.0", "data.dataset.num_train", "x", "data.x", "data.x.y", "", ".", "..", ".a", "a.",
    "a..b", "\u5b57", "da\nta", "data ", " data", "a" * 5000, ".".join("a" * 400), "=", "-", "--", "\udce9",
    "\x00", "data[0]", "data/root",
]  # fmt: skip

tokens = st.sampled_from(TOKENS) | st.text(max_size=8) | st.integers().map(str) | st.floats().map(str)
"""A scalar, or something that should have been one."""


@st.composite
def mutated_texts(draw: st.DrawFn) -> str:
    """A shipped pipeline after one to three slips of the keyboard."""
    lines = draw(st.sampled_from(sorted(SHIPPED.values()))).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        index = draw(st.integers(0, len(lines) - 1))
        match draw(
            st.sampled_from(("value", "value", "value", "insert", "delete", "double", "indent", "cut", "letter"))
        ):
            case "value":
                key, colon, _ = lines[index].partition(":")
                lines[index] = f"{key}{colon} {draw(tokens)}"
            case "insert":
                lines.insert(index, draw(st.sampled_from(LINES) | tokens))
            case "delete" if len(lines) > 1:
                del lines[index]
            case "double":
                lines.insert(index, lines[index])
            case "indent":
                lines[index] = draw(st.sampled_from((" ", "  ", "\t", "    "))) + lines[index]
            case "cut":
                lines[index] = lines[index][: draw(st.integers(0, len(lines[index])))]
            case "letter":
                at = draw(st.integers(0, len(lines[index])))
                lines[index] = lines[index][:at] + draw(st.characters()) + lines[index][at:]
    return "\n".join(lines) + draw(st.sampled_from(("\n", "", "\r\n", "\n\n\t")))


def _values(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:  # noqa: PLR0911
    """Values of a JSON schema: inside its bounds, at them and just outside, and of the wrong kind."""
    schema = {**schema, **definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], {})}
    if "anyOf" in schema:
        return st.one_of([_values(choice, definitions) for choice in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from([*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])])
    match schema.get("type"):
        case "integer" | "number":
            return _numbers(schema)
        case "boolean":
            return st.booleans()
        case "array":
            items = schema.get("prefixItems")
            if items:
                return st.tuples(*(_values(item, definitions) for item in items)).map(_sorted_if_numbers)
            return st.lists(_values(schema.get("items", {}), definitions), max_size=4)
        case "string":
            return st.sampled_from(("x", "auto", "cpu", "a b", "", "../up", "/nowhere", "\u00e9", "1"))
        case "null":
            return st.none()
        case _:
            return st.sampled_from((1, "x", None, [], {}))


def _sorted_if_numbers(values: tuple[Any, ...]) -> list[Any]:
    """Ranges are (minimum, maximum): sorted, more of them are accepted."""
    return sorted(values) if all(isinstance(value, int | float) for value in values) else list(values)


def _numbers(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    whole = schema["type"] == "integer"
    edges = [
        bound + step
        for bound in (low, high)
        if bound is not None
        for step in ((-1, 0, 1) if whole else (-1e-9, 0, 1e-9))
    ]
    odd = (
        [0, 1, 2, 3, -1, 10**6, 10**9, 10**12, 2**63 - 1, 2**63, 10**30]
        if whole
        else [0, 0.5, 1, -1, 1e-300, 1e300, math.inf]
    )
    small = st.integers(1, 64) if whole else st.floats(0, 1)
    return st.one_of(small, small, small, st.sampled_from(edges + odd))


@st.composite
def components(draw: st.DrawFn, family: str) -> Any:
    """Any component of a family with some of its parameters drawn from its schema."""
    entry = draw(st.sampled_from(list(FAMILIES[family])))
    schema = entry.params_type.model_json_schema()
    properties = schema.get("properties", {})
    required = set(schema.get("required", []))
    chosen = {key for key in properties if key in required or draw(st.booleans())}
    values = {key: draw(_values(properties[key], schema.get("$defs", {}))) for key in sorted(chosen)}
    return {"name": entry.name, **values} if values or draw(st.booleans()) else entry.name


def _fields() -> list[tuple[tuple[str, ...], Any]]:
    """Path and model of every field of the pipeline's sections; those that decide about sizes several times."""
    sections: list[tuple[tuple[str, ...], Any]] = [((), Pipeline)]
    fields: list[tuple[tuple[str, ...], Any]] = []
    for path, model in sections:
        for key, field in model.model_fields.items():
            section = section_of(field)
            if section is not None and type(None) not in get_args(field.annotation):
                sections.append(((*path, key), section))
            else:
                weight = 4 if component_of(field) or key in ("image_size", "patch_size", "batch_size") else 1
                fields += [((*path, key), model)] * weight
    return fields


FIELDS = _fields()


@st.composite
def changed_trees(draw: st.DrawFn, most: int = 4) -> dict[str, Any]:
    """A shipped pipeline with fields of any section drawn anew: mostly valid, often at the edge of it."""
    tree = copy.deepcopy(TREES[draw(st.sampled_from(sorted(TREES)))])
    if draw(st.booleans()):  # a grid of whole patches
        patch_size, side = draw(st.sampled_from((1, 2, 7, 16))), draw(st.sampled_from((1, 2, 3, 4, 9, 14)))
        tree["data"]["image_size"], tree["encoder"]["patch_size"] = side * patch_size, patch_size
    for _ in range(draw(st.integers(1, most))):
        path, model = draw(st.sampled_from(FIELDS))
        field = model.model_fields[path[-1]]
        mark = component_of(field)
        schema = model.model_json_schema()
        if mark is not None:
            value = draw(components(mark.registry.family))
        else:
            value = draw(_values(schema["properties"][path[-1]], schema.get("$defs", {})))
        here = tree
        for step in path[:-1]:
            here = here.setdefault(step, {})
        here[path[-1]] = value
    return tree


def as_yaml(tree: Any) -> str:
    """JSON is YAML, but for the numbers that JSON has not."""
    return json.dumps(tree).replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")


overrides = st.lists(
    st.builds(
        lambda key, sign, value: f"{key}{sign}{value}",
        st.sampled_from(KEYS),
        st.sampled_from(("=", "=", "=", "=", "", "==", " = ")),
        tokens,
    )
    | st.text(max_size=12),
    min_size=1,
    max_size=3,
)


def file_contents() -> st.SearchStrategy[bytes]:
    """Bytes that are no pipeline: other encodings, binary, endless, nothing."""
    text = SHIPPED["digits"]
    laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    chain = "a0: &a0 " + "[" * 40 + "]" * 40 + "\n"
    chain += "".join(f"a{i}: &a{i} {'[' * 40}*a{i - 1}{']' * 40}\n" for i in range(1, 60))
    special = [
        b"", b"\n", b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), text.encode("utf-16-be"),
        text.encode("utf-32"), text.replace("digits", "d\u00efgits").encode("latin-1"), laughs.encode(),
        chain.encode(), b"[" * 100_000, b"{a: " * 50_000, b"- " * 50_000, b"? " * 20_000,
        text.encode() + b"x: '" + b"a" * 10_000_000 + b"'\n", b"\x00" * 100,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
        text.encode() + b"".join(b"k%d: 1\n" % i for i in range(3000)), text.encode() * 2, b"#" * 200_000,
        b"a: " + b"&x " * 1000, b"a: " + b"!t " * 1000, b"a" * 200_000, b"%" * 1000, b"'" * 9999,
    ]  # fmt: skip
    return st.sampled_from(special) | st.binary(max_size=64)
