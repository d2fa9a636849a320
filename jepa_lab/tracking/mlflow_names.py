"""MLflow's limits on names and values, and values as its pages show them best, without importing MLflow.

Source: mlflow/utils/validation.py of MLflow 3.17; the integration test sends names and values at the limits.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping

from jepa_lab.errors import ConfigError
from jepa_lab.labels import label

MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_PER_BATCH = 100
MAX_TAGS_PER_BATCH = 100
MAX_NAME = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_DATASET_DIGEST = 36
_MAX_BATCH_BYTES = 500_000  # a server refuses requests of more than a million; the rest is for the JSON around

CUT_PARAMS_TAG = "jepa_lab.cut_params"
_ILLEGAL_IN_MODELS = re.compile(r"[/:.%\"']")
_ILLEGAL = re.compile(r"[^/\w.\- ]")


def legal_name(name: str) -> str:
    """`name` as a param, metric or tag may be called: other characters become "_", paths are normalised.

    A name that is too long ends with a part of its digest, so that two long names stay two.
    """
    plain = _ILLEGAL.sub("_", name)
    if len(plain) > MAX_NAME:
        ending = f"_{_digest(name)[:16]}"
        plain = plain[: MAX_NAME - len(ending)] + ending
    return posixpath.normpath(plain).lstrip("./") or "_"


def cut_value(value: str, max_length: int) -> str:
    """`value`, or its beginning and the SHA-256 of all of it in `max_length` characters.

    Without the digest two values that differ only after the cut would look equal wherever they are compared.
    """
    if len(value) <= max_length:
        return value
    ending = f"... sha256:{_digest(value)}"
    return value[: max_length - len(ending)] + ending


def readable_value(value: str) -> str:
    """A param as people read it: a list of components or of names without JSON's brackets and quotes.

    `[{"name": "rankme"}, {"name": "knn", "neighbors": 5}]` becomes `rankme, knn(neighbors=5)`, and `["a", "b"]`
    becomes `a, b`. Numbers, lists of numbers and texts stay as they are.

    Args:
        value: as `flat_params` gives it, or as this function did.
    """
    if not value.startswith(('["', "[{")):
        return value
    try:
        entries = json.loads(value)
    except json.JSONDecodeError:  # a text that begins like a list
        return value
    texts = [label(entry) for entry in entries]
    apart = "; " if any("," in text for text in texts) else ", "
    return apart.join(texts)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def quoted(name: str) -> str:
    """A text in MLflow's query language, which has no escapes.

    Raises:
        ConfigError: if it holds both kinds of quotes.
    """
    if "'" not in name:
        return f"'{name}'"
    if '"' in name:
        raise ConfigError(
            f"{name!r} holds both kinds of quotes, which MLflow cannot search for; use another name or id"
        )
    return f'"{name}"'


def legal_model_name(name: str) -> str:
    """`name` as a logged model may be called; a run folder may have been renamed to anything."""
    return _ILLEGAL_IN_MODELS.sub("_", name)


def legal_params(params: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Params as MLflow's pages show them, within its limits, and the names of those whose value had to be cut.

    MLflow would cut as well, with a warning that nobody sees and without a trace of the rest; the caller puts the
    names into a tag. Two names that become the same legal name are told apart by a number.
    """
    legal: dict[str, str] = {}
    cut = []
    for name, value in params.items():
        key, number = legal_name(name), 1
        while key in legal:
            number += 1
            key = f"{legal_name(name)[: MAX_NAME - 10]}_{number}"
        shown = readable_value(value)
        legal[key] = cut_value(shown, MAX_PARAM_VALUE)
        if len(shown) > MAX_PARAM_VALUE:
            cut.append(key)
    return legal, cut


def legal_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags within MLflow's limits; a cut value ends with the digest of the whole."""
    return {legal_name(name): cut_value(value, MAX_TAG_VALUE) for name, value in tags.items()}


def batches(entries: Mapping[str, str], max_entries: int) -> Iterator[dict[str, str]]:
    """Params or tags in portions that one request may hold, by number and by bytes of JSON."""
    batch: dict[str, str] = {}
    size = 0
    for name, value in entries.items():
        more = len(json.dumps(name)) + len(json.dumps(value))  # a letter beyond ASCII takes six bytes and more
        if batch and (len(batch) == max_entries or size + more > _MAX_BATCH_BYTES):
            yield batch
            batch, size = {}, 0
        batch[name] = value
        size += more
    if batch:
        yield batch
