"""The example of a plug-in, installed as its README says, passes its tests and is used by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.pipelines import write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example beside the folder `installed`, where pip has put it."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(ROOT / "examples" / "jepa_lab_halves", folder / "source")
    pip = ("-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", "--target")
    done = subprocess.run(
        [sys.executable, *pip, folder / "installed", folder / "source"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def run(example: Path, *arguments: str | Path) -> str:
    """The output of a Python that finds the installed package."""
    environment = os.environ | {"PYTHONPATH": f"{example / 'installed'}{os.pathsep}{ROOT}"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=example, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_passes_the_contracts_of_its_families(example: Path) -> None:
    said = run(example, "-m", "pytest", "-q", "-p", "no:cacheprovider", "source/tests")
    assert " passed" in said
    assert "failed" not in said


def test_its_components_are_known_by_name_and_train(example: Path) -> None:
    assert "halves" in run(example, "-m", "jepa_lab", "list", "masker")
    write_tiny(example)
    overrides = ("masker=halves", "masker.context_columns=2", "loss=charbonnier", "loss.width=0.1")
    short = ("training.epochs=1", "probe.additional=[]")
    assert "this run" in run(example, "-m", "jepa_lab", "run", "tiny.yaml", *overrides, *short)


def test_its_rule_is_told_with_the_place_of_the_setting(example: Path) -> None:
    write_tiny(example)
    environment = os.environ | {"PYTHONPATH": f"{example / 'installed'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "jepa_lab", "check", "tiny.yaml", "masker=halves", "masker.context_columns=4"]
    done = subprocess.run(command, cwd=example, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "masker.context_columns=4': masker.context_columns must be below the 4 columns of the 4x4" in done.stderr
