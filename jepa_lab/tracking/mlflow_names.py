"""MLflow's limits on names and values, without importing MLflow.

Source: mlflow/utils/validation.py of MLflow 3.17; the integration test sends names and values at the limits.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping

MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_PER_BATCH = 100
MAX_TAGS_PER_BATCH = 100
MAX_NAME = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_DATASET_DIGEST = 36
_MAX_BATCH_BYTES = 500_000  # a server refuses requests of more than a million; the rest is for the JSON around

CUT_PARAMS_TAG = "jepa_lab.cut_params"
_ILLEGAL = re.compile(r"[^/\w.\- ]")


def legal_name(name: str) -> str:
    """`name` as a param, metric or tag may be called: other characters become "_", paths are normalised."""
    plain = posixpath.normpath(_ILLEGAL.sub("_", name)[:MAX_NAME])
    return plain.lstrip("./") or "_"


def legal_params(params: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Params within MLflow's limits, and the names of those whose value had to be cut.

    MLflow would cut as well, with a warning that nobody sees; the caller puts the names into a tag. Two names
    that become the same legal name are told apart by a number.
    """
    legal: dict[str, str] = {}
    cut = []
    for name, value in params.items():
        key, number = legal_name(name), 1
        while key in legal:
            number += 1
            key = f"{legal_name(name)[: MAX_NAME - 10]}_{number}"
        legal[key] = value[:MAX_PARAM_VALUE]
        if len(value) > MAX_PARAM_VALUE:
            cut.append(key)
    return legal, cut


def legal_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags within MLflow's limits; a cut value ends in "..."."""
    return {
        legal_name(name): value if len(value) <= MAX_TAG_VALUE else value[: MAX_TAG_VALUE - 3] + "..."
        for name, value in tags.items()
    }


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
