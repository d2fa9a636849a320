"""No parameter of the schema is without effect: something reads each of them."""

from __future__ import annotations

import importlib
from collections import defaultdict
from pathlib import Path

import pytest
from pydantic import BaseModel

import jepa_lab.sweeps.executors  # noqa: F401  (registers the executors; the pipeline the rest)
from jepa_lab.config.fields import section_of
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.maskers.base import MASKERS
from jepa_lab.registry import FAMILIES
from tests.contracts.reading import Holding, read_module, read_package

SOURCES = read_package()
BEFORE_VALIDATION = {Pipeline: {"plugins"}}
"""Read from the YAML itself, because the schema depends on them: tests/integration/test_cli.py."""


def sections_of(model: type[BaseModel], names: frozenset[str]) -> dict[type[BaseModel], frozenset[str]]:
    """A settings class, those inside it, and the names of the fields that hold them."""
    found: dict[type[BaseModel], frozenset[str]] = defaultdict(frozenset, {model: names})
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            for section, held in sections_of(inner, frozenset({name})).items():
                found[section] |= held
    return found


COMPONENTS = [
    pytest.param(Holding(entry.params_type, entry.component), id=f"{family}-{entry.name}")
    for family, registry in FAMILIES.items()
    for entry in registry
    if entry.params_type.model_fields
]
SECTIONS = [
    pytest.param(Holding(section, sections=names), id=section.__name__)
    for section, names in sections_of(Pipeline, frozenset({"pipeline"})).items()
]


@pytest.mark.parametrize("holding", COMPONENTS + SECTIONS)
def test_every_parameter_is_read(holding: Holding) -> None:
    unread = holding.unread(SOURCES) - BEFORE_VALIDATION.get(holding.params, set())
    assert not unread, f"{holding.params.__name__} has options that do nothing"


PLUGIN = '''
from pydantic import Field, model_validator
from jepa_lab.maskers.base import MASKERS, Masker
from jepa_lab.registry import ComponentParams

class ShyParams(ComponentParams):
    read: int = Field(1, description="d")
    read_by_another_name: int = Field(1, description="d")
    read_by_a_method: int = Field(1, description="d")
    read_by_a_method_that_nobody_calls: int = Field(1, description="d")
    checked_only: int = Field(1, description="d")
    told_only: int = Field(1, description="d")
    of_something_else: int = Field(1, description="d")
    ignored: int = Field(1, description="d")

    @model_validator(mode="after")
    def _check(self):
        if self.checked_only < 0:
            raise ValueError("checked_only")
        return self

    def doubled(self):
        return self.halved()

    def halved(self):
        return self.read_by_a_method

    def forgotten(self):
        return self.read_by_a_method_that_nobody_calls

@MASKERS.register("shy", summary="s", source="t")
class Shy(Masker):
    """Reads some of its parameters; told_only is a word in this text."""

    Params = ShyParams

    def __init__(self, params, grid):
        super().__init__(params, grid)
        given = params
        self.number = self.params.read + given.read_by_another_name + given.doubled() + grid.of_something_else
        self.ignored = "told_only"
'''


def test_a_parameter_that_nothing_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shy_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("shy_plugin")
    entry = MASKERS.get("shy")
    sources = {**SOURCES, "shy_plugin": read_module(PLUGIN)}
    assert Holding(entry.params_type, entry.component).unread(sources) == {
        "read_by_a_method_that_nobody_calls",
        "checked_only",
        "told_only",
        "of_something_else",
        "ignored",
    }
