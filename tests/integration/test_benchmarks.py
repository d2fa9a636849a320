"""The benchmarks are programs that others run: here that they run, and that what they count is right."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.scaling import exponent
from benchmarks.step import count_flops, count_launches
from benchmarks.timing import markdown_table
from jepa_lab.training.devices import Compute

ROOT = Path(__file__).parents[2]
CPU = Compute(torch.device("cpu"), "fp32", compile=False)


def suite(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(ROOT / "benchmarks" / "gpu_suite.sh"), "--out", str(out), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_the_short_suite_runs_every_kind_of_stage_and_sums_up(tmp_path: Path) -> None:
    found = suite(tmp_path, "--short", "--only", "environment,step-digits,masks,train-digits")
    assert found.returncode == 0, found.stdout + found.stderr
    rows = (tmp_path / "summary.md").read_text().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["environment", "step-digits", "masks", "train-digits"]
    assert all("done" in row for row in rows)
    assert "uncaptured" in (tmp_path / "step-digits.md").read_text()
    assert "multi_block" in (tmp_path / "masks.md").read_text()
    assert next((tmp_path / "runs").rglob("result.json")).is_file()


def test_a_stage_that_fails_is_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "PYTHON": str(tmp_path / "python")}
    command = [str(ROOT / "benchmarks" / "gpu_suite.sh"), "--short", "--only", "masks", "--out", str(tmp_path / "out")]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "failed with exit code 7: see masks.log" in found.stdout


def test_a_stage_that_the_budget_does_not_hold_is_skipped_by_name(tmp_path: Path) -> None:
    found = suite(tmp_path, "--short", "--only", "masks", "--budget", "5")
    assert found.returncode == 0
    assert "| masks | 0 | 60 | skipped" in found.stdout


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    found = suite(tmp_path, "--shrt")
    assert found.returncode == 2
    assert "unknown option --shrt" in found.stderr


@pytest.mark.slow
def test_scaling_runs_on_a_cpu() -> None:
    command = [sys.executable, "-m", "benchmarks.scaling", "pipelines/digits.yaml", "training.batch_size=8"]
    command += ["--device", "cpu", "--blocks", "1"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in ("batch", "image side", "encoder width", "encoder depth"))


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_exponent_is_the_slope_of_the_logarithms(power: float) -> None:
    values = [8, 16, 64]
    assert math.isclose(exponent(values, [3 * value**power for value in values]), power)


def test_flops_and_operators_of_a_known_call_are_counted() -> None:
    left, right = torch.zeros(8, 16), torch.zeros(16, 4)
    assert count_flops(lambda: left @ right) == 2 * 8 * 16 * 4
    assert count_launches(lambda: torch.relu(left @ right), CPU) == 2


def test_the_columns_of_a_table_are_aligned() -> None:
    lines = markdown_table(["a", "long header"], [["long cell", "b"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
