"""Small ablation files for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.errors import JepaLabError
from jepa_lab.sweeps.plan import Plan, load_plan
from tests.integration.pipelines import TINY


def write_ablation(folder: Path, text: str, name: str = "example") -> Path:
    """The ablation file over the tiny pipeline, whose line 1 is `base`."""
    (folder / "tiny.yaml").write_text(TINY)
    file = folder / f"{name}.yaml"
    file.write_text(f"base: tiny.yaml\n{text}")
    return file


def plan_of(folder: Path, text: str, *overrides: str, preset: str | None = None) -> Plan:
    return load_plan(write_ablation(folder, text), overrides, preset)


def refusal(folder: Path, text: str, *overrides: str, preset: str | None = None) -> list[str]:
    """The lines of the message, without the folder's name."""
    with pytest.raises(JepaLabError) as caught:
        plan_of(folder, text, *overrides, preset=preset)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "").splitlines()
