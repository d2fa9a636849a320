"""Pipelines and overrides as Python's users give them: names, paths, dictionaries."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jepa_lab.config.documents import Document
from jepa_lab.config.loading import LoadedPipeline, complete_pipeline, load_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.shipped import find_file
from jepa_lab.errors import ConfigError
from jepa_lab.tracking.credentials import scrub

PipelineSource: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Pipeline"
Overrides: TypeAlias = Mapping[str, Any]


def load_given_pipeline(
    given: PipelineSource, overrides: Sequence[str] = (), preset: str | None = None
) -> LoadedPipeline:
    """The pipeline of a file, of the name of one that comes with jepa-lab, of a dictionary, or of another pipeline.

    Args:
        overrides: as on the command line, see `override_texts`.
    Raises:
        ConfigError: place, value, rule and remedy of everything that is wrong.
    """
    if isinstance(given, Pipeline):
        content = given.model_dump(mode="json")
    elif isinstance(given, Mapping):
        content = json.loads(_as_json(given, "the pipeline"))
    else:
        return load_pipeline(found_file(Path(given), "pipeline"), overrides, preset)
    return complete_pipeline(Document(content), overrides, preset)


def found_file(given: Path, kind: Literal["pipeline", "ablation"]) -> Path:
    """The file that is meant, which may come with jepa-lab; a choice between files is told on the standard error."""
    file, note = find_file(given, kind)
    if note is not None:
        print(f"note: {scrub(note)}", file=sys.stderr, flush=True)
    return file


def override_texts(overrides: Overrides | None) -> list[str]:
    """Overrides as the command line takes them: `{"training.epochs": 10}` is `training.epochs=10`.

    Raises:
        ConfigError: these are not a dictionary, a key is not a dotted key, or YAML has no form for a value.
    """
    if not isinstance(overrides, Mapping | None):
        raise ConfigError(
            f"overrides are a dictionary such as {{'training.epochs': 10}}, got a {type(overrides).__name__}"
        )
    texts = []
    for key, value in (overrides or {}).items():
        if not isinstance(key, str) or "=" in key:
            raise ConfigError(f"keys of overrides are dotted keys such as 'training.epochs', got {key!r}")
        texts.append(f"{key}={_as_json(value, f'the override of {key}')}")
    return texts


def grid_texts(grid: Mapping[str, Sequence[Any]] | None) -> list[str]:
    """Several values of each key as the command line takes them: `{"masker": ["a", "b"]}` is `masker=a,b`.

    Raises:
        ConfigError: see `override_texts`.
    """
    texts = []
    for key, values in ({} if grid is None else grid).items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ConfigError(f"grid has a list of values for each key, got {values!r} for {key!r}; write [{values!r}]")
        (first, *rest) = (override_texts({key: value})[0] for value in values)
        texts.append(",".join([first, *(text.partition("=")[2] for text in rest)]))
    return texts


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises:
    ConfigError: the value of this argument is not one of the choices.
    """
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _as_json(value: Any, what: str) -> str:
    """JSON, which YAML's readers read.

    Raises:
        ConfigError: there is something in it that YAML has no form for.
    """

    def plain(inner: Any) -> Any:
        if isinstance(inner, os.PathLike):
            return os.fspath(inner)
        raise ConfigError(
            f"{what} holds {type(inner).__name__} {inner!r}; give numbers, texts, True, False, None, lists and "
            "dictionaries"
        )

    return json.dumps(value, ensure_ascii=False, default=plain)
