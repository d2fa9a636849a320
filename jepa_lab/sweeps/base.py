"""The pipeline that every arm of an ablation is a change of."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.documents import Document, load_document, parse_override, place_of_override
from jepa_lab.config.loading import (
    LoadedPipeline,
    expand_components,
    load_plugins,
    plugin_names,
    validate,
    write_override,
)
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.presets import apply_preset
from jepa_lab.config.shipped import shipped_files
from jepa_lab.config.yaml_text import Path_
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.ablation import AblationFile


@dataclass(frozen=True)
class Change:
    """One value that is written over the base pipeline.

    Attributes:
        key: dotted key of the pipeline. value: plain YAML.
        place: where it was written. inner: the same for the paths inside a value with several lines.
    """

    key: str
    value: Any
    place: str
    inner: Mapping[Path_, str]

    def write(self, document: Document) -> None:
        """Write it, as an override of the command line would be."""
        path = path_of(self.key)
        write_override(document, path, copy.deepcopy(self.value), self.place)
        for rest, place in self.inner.items():
            document.mark((*path, *rest), place)


@dataclass(frozen=True)
class Base:
    """The base pipeline with all that is the same in every arm; not validated by itself."""

    document: Document

    def changed(self, changes: Sequence[Change]) -> LoadedPipeline:
        """The pipeline with an arm's changes, checked as before a run.

        Raises:
            ConfigError, DeviceError: it would not run.
        """
        document = copy.deepcopy(self.document)
        for change in changes:
            change.write(document)
        loaded = validate(document)
        check_pipeline(loaded)
        return loaded


def with_seed(loaded: LoadedPipeline, seed: int) -> LoadedPipeline:
    """The same pipeline with another seed."""
    assert 0 <= seed < 2**63, f"no seed: {seed}"
    return replace(loaded, pipeline=loaded.pipeline.model_copy(update={"seed": seed}))


def with_split(loaded: LoadedPipeline, split_seed: int) -> LoadedPipeline:
    """The same pipeline with another validation split, and with the test split that it had."""
    data = loaded.pipeline.data
    test = data.split_seed if data.test_split_seed is None else data.test_split_seed
    changed = data.model_copy(update={"split_seed": split_seed, "test_split_seed": test})
    return replace(loaded, pipeline=loaded.pipeline.model_copy(update={"data": changed}))


def ended_on_collapse(loaded: LoadedPipeline, ends: bool) -> LoadedPipeline:
    """The same pipeline, whose run ends (or does not end) as soon as its features are judged collapsed."""
    training = loaded.pipeline.training.model_copy(update={"stop_on_collapse": ends})
    return replace(loaded, pipeline=loaded.pipeline.model_copy(update={"training": training}))


def path_of(key: str) -> Path_:
    """`a.b` -> ("a", "b")"""
    return tuple(key.split("."))


def change_at(file: AblationFile, key: str, value: Any, source: Path_) -> Change:
    """A change that stands at path `source` of the ablation file."""
    places = file.document.places
    inner = {path[len(source) :]: place for path, place in places.items() if path[: len(source)] == source != path}
    return Change(key, value, file.document.place(source), inner)


def load_base(file: AblationFile, overrides: Sequence[str], preset: str | None) -> Base:
    """Base file, the ablation's `base_overrides` and `overrides`, preset, command line: later ones win.

    Raises:
        ConfigError: a file, a preset, a plug-in or an override is wrong.
    """
    document = load_document(_base_path(file))
    if "base" in document.data:
        raise ConfigError(
            f"base names {file.ablation.base}, which is an ablation; name a pipeline", place=file.place("base")
        )
    sections = {"base_overrides": file.ablation.base_overrides, "overrides": file.ablation.overrides}
    common = [
        change_at(file, key, value, (section, key))
        for section, changes in sections.items()
        for key, value in changes.items()
    ]
    given = [(text, *parse_override(text)) for text in overrides]
    for place, key, value in [*((each.place, path_of(each.key), each.value) for each in common), *_placed(given)]:
        if key == ("plugins",):  # imported before anything is expanded
            document.set(key, value, place)
    load_plugins(plugin_names(document), document)
    expand_components(Pipeline, document.data)
    for change in common:
        change.write(document)
    if preset is not None:
        root_given = any(path == ("data", "root") and value is not None for _, path, value in given)
        apply_preset(preset, document, root_given)
        expand_components(Pipeline, document.data)
    for place, path, value in _placed(given):
        write_override(document, path, value, place)
    document.set(("name",), file.name, file.place("name"))
    return Base(document)


def _placed(overrides: Sequence[tuple[str, Path_, Any]]) -> list[tuple[str, Path_, Any]]:
    return [(place_of_override(text), path, value) for text, path, value in overrides]


def _base_path(file: AblationFile) -> Path:
    """The base pipeline's file, written without `..` where that is the same file."""
    path = file.path.parent / file.ablation.base
    shipped = shipped_files("pipeline")
    if not path.is_file() and file.ablation.base in shipped:
        return shipped[file.ablation.base]
    if not path.is_file():
        raise ConfigError(
            f"base names {path}, which is not a file; name a pipeline file as seen from the folder of this file, as in "
            "base: ../pipelines/digits.yaml, or a pipeline that comes with jepa-lab, as in base: digits",
            place=file.place("base"),
        )
    short = Path(os.path.normpath(path))
    return short if short.exists() and short.samefile(path) else path
