"""The table of what each document asks for, in docs/recipes.md: all in it exists, and pipelines are as it says."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from jepa_lab.cli import main
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
BY_CHOICE = "by choice"


@dataclass(frozen=True)
class Row:
    """One behaviour that a document asks for."""

    document: str
    behaviour: str
    parameters: str
    tests: str

    @property
    def has(self) -> list[str]:
        """Overrides that change nothing about the document's pipeline."""
        parts = re.split(r";\s*", self.parameters)
        return [each for part in parts if not part.startswith(BY_CHOICE) for each in codes(part) if "=" in each]

    @property
    def offered(self) -> list[str]:
        """Overrides that change it."""
        parts = re.split(r";\s*", self.parameters)
        return [each for part in parts if part.startswith(BY_CHOICE) for each in codes(part) if "=" in each]

    @property
    def others(self) -> list[str]:
        """Commands and ablations."""
        return [each for each in codes(self.parameters) if "=" not in each]


def codes(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def tables() -> list[list[list[str]]]:
    """The tables below the heading, each row as its cells, without the heading row."""
    text = (ROOT / "docs" / "recipes.md").read_text().partition("## What each document asks for")[2]
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table[2:] for table in found if table]


DOCUMENTS = {document: codes(pipelines) for document, _, pipelines in tables()[0]}
ROWS = [Row(*cells) for cells in tables()[1]]


@cache
def pipeline_of(document: str, *overrides: str) -> Pipeline:
    """The first pipeline of a document."""
    return load_pipeline(ROOT / "pipelines" / f"{DOCUMENTS[document][0]}.yaml", overrides).pipeline


@cache
def names_in(file: str) -> set[str]:
    """Tests of a file as pytest names them, those of a class with its name."""
    body = ast.parse((ROOT / file).read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return functions | {
        f"{c.name}::{node.name}" for c in classes for node in c.body if isinstance(node, ast.FunctionDef)
    }


each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.document}: {row.behaviour}")


def test_the_pipelines_of_the_documents_are_there_and_each_document_has_rows() -> None:
    assert all((ROOT / "pipelines" / f"{name}.yaml").is_file() for names in DOCUMENTS.values() for name in names)
    assert {row.document for row in ROWS} == set(DOCUMENTS)
    assert len({(row.document, row.behaviour) for row in ROWS}) == len(ROWS) > 50


@each_row
def test_a_pipeline_has_what_its_row_says_and_gets_what_is_a_choice(row: Row) -> None:
    assert codes(row.parameters)
    for override in row.has:
        assert pipeline_of(row.document, override) == pipeline_of(row.document), override
    for override in row.offered:
        assert pipeline_of(row.document, override) != pipeline_of(row.document), override
    for other in row.others:
        command, _, name = other.partition(" ")
        known = name in main.commands if command == "jepa-lab" else (ROOT / other).is_file()
        assert known, other


@each_row
def test_the_tests_of_a_row_exist(row: Row) -> None:
    assert codes(row.tests)
    for test in codes(row.tests):
        file, _, name = test.partition("::")
        assert name in names_in(file), test
