"""Imports point one way, and heavy packages stay at the edge."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "jepa_lab"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"errors", "grid", "interruption", "labels", "measures", "output", "randomness", "tables", "waiting_threads"},
    {"pages", "registry"},
    {"contracts"},
    {"tracking"},
    {"runs"},
    {"maskers", "positions", "losses", "data"},
    {"targets", "regularizers", "downsampling"},
    {"figures"},
    {"models", "probes"},
    {"monitors"},
    {"training"},
    {"config"},
    {"build"},
    {"arithmetic", "monitoring", "predicted_classes"},
    {"inspection", "evaluation", "mask_picture", "catalogue", "data_record", "looks"},
    {"weights", "parent", "feature_files", "run_figures"},
    {"composition", "reprobe", "summary"},
    {"resume", "attention_picture", "interop", "run_list"},
    {"reports"},
    {"sweeps"},
    {"api", "testing"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
"""Lowest first; a module imports from its own layer's own package or from a lower layer. `tracking`'s registry and
run folder know nothing of training; training writes to them."""


def imported_modules(file: Path) -> set[str]:
    return _imports_of(ast.parse(file.read_text()))


def _imports_of(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer_of(part: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


@pytest.mark.parametrize("file", [file for file in FILES if file.name != "__init__.py"], ids=lambda file: file.name)
def test_imports_point_to_lower_layers(file: Path) -> None:
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imported_modules(file):
        other = part_of(module)
        if not module.startswith("jepa_lab.") or other == part:
            continue
        assert layer_of(other) < layer_of(part), f"{file.name} imports {module}"


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("mlflow", {"tracking"}),
        ("optuna", {"sweeps"}),
        ("ray", {"sweeps"}),
        ("click", {"commands", "cli.py"}),
        ("ruamel", {"config"}),
    ],
)
def test_edge_packages_are_imported_at_the_edge(package: str, allowed: set[str]) -> None:
    for file in FILES:
        users = {module for module in imported_modules(file) if module.split(".")[0] == package}
        assert not users or file.relative_to(PACKAGE).parts[0] in allowed, file


def test_ray_is_imported_in_functions_alone_because_not_everybody_has_it() -> None:
    for file in FILES:
        statements = ast.parse(file.read_text()).body
        top = ast.Module([each for each in statements if isinstance(each, ast.Import | ast.ImportFrom)], [])
        assert not any(name.split(".")[0] == "ray" for name in _imports_of(top)), file


def test_the_command_line_starts_without_torch_or_other_heavy_packages() -> None:
    code = (
        "import sys, jepa_lab.cli; "
        "print([name for name in ('torch', 'mlflow', 'optuna', 'sklearn', 'pandas', 'pydantic', 'matplotlib') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_runs_without_mlflow_and_optuna_when_tracking_is_none() -> None:
    code = (
        "import sys; sys.modules['mlflow'] = sys.modules['optuna'] = None; "
        "import jepa_lab.composition.start, jepa_lab.catalogue, jepa_lab.inspection; print('ok')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ok", done.stderr
