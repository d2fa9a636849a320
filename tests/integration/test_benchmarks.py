"""The benchmarks are programs that others run: here that they run, and that what they count is right."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from benchmarks.packing import Packed, Variant, as_markdown, conclusions, measure, memory_per_trial, variants
from benchmarks.packing import main as packing
from benchmarks.packing_trial import Speed, steps_within
from benchmarks.scaling import exponent
from benchmarks.step import count_flops, count_launches
from benchmarks.sweep_scale import ablation
from benchmarks.timing import markdown_table
from jepa_lab.sweeps.plan import load_plan
from jepa_lab.training.devices import Compute
from tests.unit.sweeps.sharing.fake_mps import FakeMps

ROOT = Path(__file__).parents[2]
CPU = Compute(torch.device("cpu"), "fp32", compile=False)


def suite(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(ROOT / "benchmarks" / "gpu_suite.sh"), "--out", str(out), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_the_short_suite_runs_every_kind_of_stage_and_sums_up(tmp_path: Path) -> None:
    found = suite(tmp_path, "--short", "--only", "environment,step-digits,masks,packing,train-digits")
    assert found.returncode == 0, found.stdout + found.stderr
    rows = (tmp_path / "summary.md").read_text().splitlines()[2:]
    names = [row.split("|")[1].strip() for row in rows]
    assert names == ["environment", "step-digits", "masks", "packing", "train-digits"]
    assert all("done" in row for row in rows)
    step = (tmp_path / "step-digits.md").read_text()
    ratios = {way: float(row.split("|")[6]) for way in ("packed", "padded") for row in step.splitlines() if way in row}
    assert ratios["packed"] < ratios["padded"], step
    assert "multi_block" in (tmp_path / "masks.md").read_text()
    packing = (tmp_path / "packing.md").read_text()
    assert re.search(r"^\| 1 +\| uncaptured \| no +\| [\d,]+ +\| 1\.00 ", packing, re.MULTILINE), packing
    assert re.search(r"^\| 2 +\| uncaptured \| no +\| [\d,]+ +\| \d+\.\d\d ", packing, re.MULTILINE), packing
    assert re.search(r"^- 2 uncaptured trials: \d+\.\d\d times one uncaptured trial; limited by", packing, re.MULTILINE)
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


def packed(trials: int, captured: bool, images: float, busy: float | None = None, cores: float = 0.5) -> Packed:
    """Trials that share a GPU with 10 GiB left: each made so many images a second on so many cores."""
    speeds = [Speed(images, cores, 2**30, 10 * 2**30) for _ in range(trials)]
    return Packed(Variant(trials, captured), speeds, by_mps=trials > 1, busy=busy)


def test_steps_are_counted_where_they_fall_into_the_window() -> None:
    times = [0.0, 1.0, 2.0, 4.0]  # five steps each
    assert math.isclose(steps_within(times, 0.5, 3.0), 2.5 + 5 + 2.5)
    assert math.isclose(steps_within(times, 0.0, 4.0), 15)


def test_on_a_gpu_every_number_of_trials_is_measured_captured_and_not_and_the_largest_without_mps_too() -> None:
    found = variants([1, 8], on_gpu=True)
    assert [(each.trials, each.captured, each.mps) for each in found] == [
        (1, False, True),
        (1, True, True),
        (8, False, True),
        (8, True, True),
        (8, False, False),
        (8, True, False),
    ]
    assert variants([1, 8], on_gpu=False) == [Variant(1, False), Variant(8, False)]


def test_packed_trials_are_compared_with_one_of_each_kind() -> None:
    rows = [packed(1, False, 100), packed(1, True, 400), packed(8, False, 50, 0.4, 2.0), packed(8, True, 60, 0.99)]
    line = as_markdown(rows, 18 * 2**30).splitlines()[-1]
    assert [cell.strip() for cell in line.strip("| ").split("|")] == [
        *("8", "captured", "yes", "480", "4.80", "1.20"),
        *("1,024", "4.0", "99%"),
    ]
    assert conclusions(rows, cores=16).splitlines() == [
        "- 8 uncaptured trials: 4.00 times one uncaptured trial; limited by the CPU, 16.0 of whose 16 cores were busy.",
        "- 8 captured trials: 1.20 times one captured trial; "
        "limited by the GPU, on which a kernel ran 99% of the time.",
    ]


def test_memory_per_trial_is_what_the_gpu_has_less_of() -> None:
    assert memory_per_trial(packed(8, True, 60), 18 * 2**30) == 2**30
    assert memory_per_trial(packed(2, False, 60), None) == 2**30, "of the process, where there is no GPU"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "1,0"], "give numbers of trials such as 1,2,4,8, got '1,0'"),
        (["training.batch_size=none"], "training.batch_size"),
    ],
)
def test_what_packing_cannot_measure_is_refused(arguments: list[str], message: str) -> None:
    found = CliRunner().invoke(packing, ["pipelines/digits.yaml", "--device", "cpu", *arguments])
    assert found.exit_code != 0
    assert message in found.output


def test_a_trial_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"Variant\(trials=1, .*failed: .*nothing\.yaml"):
        measure(tmp_path / "nothing.yaml", [], Variant(1, False), 0.1, [], tmp_path)


@pytest.mark.slow
def test_trials_on_a_gpu_are_clients_of_a_daemon_as_those_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMps(tmp_path, monkeypatch)
    smi = fake.tool.with_name("nvidia-smi")
    smi.write_text("#!/bin/sh\necho 97\n")
    smi.chmod(0o755)
    overrides = ["training.batch_size=16", "training.device=cpu"]
    row = measure(ROOT / "pipelines" / "digits.yaml", overrides, Variant(2, False), 1.5, ["0"], tmp_path)
    assert row.by_mps
    assert row.busy == 0.97
    assert len(row.speeds) == 2
    assert all(speed.images_per_second > 0 for speed in row.speeds)
    assert fake.said("start", "quit") == ["start 0", "quit"]


def test_the_columns_of_a_table_are_aligned() -> None:
    lines = markdown_table(["a", "long header"], [["long cell", "b"]]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_simulated_sweeps_are_ablations_of_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "simulated.yaml"
    file.write_text(ablation("table", 60, "none"))
    plan = load_plan(file)
    assert (len(plan.arms), plan.num_trials) == (6, 60)
    file.write_text(ablation("search", 60, "none"))
    search = load_plan(file).search
    assert search is not None
    assert search.budget.trials == 60


@pytest.mark.slow
def test_the_costs_of_simulated_sweeps_are_measured_and_drawn(tmp_path: Path) -> None:
    out = tmp_path / "costs"
    command = [sys.executable, "-m", "benchmarks.sweep_scale", "--trials", "20,40", "--folder", str(tmp_path / "scale")]
    found = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    rows = out.with_suffix(".md").read_text().splitlines()
    names = {row.split("|")[1].strip() for row in rows if row.startswith("| ")}
    assert {"parent", "study", "parent again", "report", "table in the terminal"} <= names
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
