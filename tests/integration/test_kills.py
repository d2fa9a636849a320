"""SIGKILL at any moment: the run that is resumed ends bitwise as one that was never killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jepa_lab.composition.start import start_run
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import load_tiny, write_tiny
from tests.integration.runs import assert_same_run

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def finished_run(runs: Path) -> RunFolder:
    """The one run folder of a root that holds a finished run."""
    folders = [RunFolder.open(path) for path in runs.iterdir() if not path.name.startswith(".")]
    (finished,) = [folder for folder in folders if (folder.read_result() or {}).get("status") == "FINISHED"]
    return finished


@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_before_any_file_operation_changes_nothing_about_the_end(tmp_path: Path, count: int) -> None:
    write_tiny(tmp_path)
    command = [sys.executable, "-W", "error", "-m", "tests.integration.kill_points", str(tmp_path), str(count)]
    done = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    whole = finished_run(tmp_path / "whole")
    assert report["operations"] > 100
    for point in report["points"]:
        assert point["first"] == signal.SIGKILL, point
        assert point["last"] == 0, point
        assert_same_run(finished_run(Path(point["runs"])), whole)


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 20])
def test_a_real_run_that_is_killed_at_random_moments_ends_bitwise_as_an_uninterrupted_one(
    tmp_path: Path, count: int
) -> None:
    # Long enough that none of the kills comes after its end, on any machine: epochs are added until one is.
    overrides = [f"training.epochs={60 * count}", "probe.every_epochs=5", "training.checkpoint_every_steps=7"]
    whole = start_run(load_tiny(tmp_path, *overrides), tmp_path / "whole", []).folder
    runs, chance = tmp_path / "runs", random.Random(count)
    command = [sys.executable, "-m", "jepa_lab", "run", str(tmp_path / "tiny.yaml"), *overrides]
    command += ["--runs", str(runs), "--resume", "auto"]
    kills = 0
    while kills < count:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _wait_for_growth(process, runs)
            process.wait(chance.uniform(0, 0.7))
        process.kill()
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        kills += 1
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kills >= min(count, 3)
    assert_same_run(finished_run(runs), whole)


def _wait_for_growth(process: subprocess.Popen[bytes], runs: Path) -> None:
    """Wait until the run writes metrics: importing and loading take seconds in which there is nothing to break."""

    def written() -> int:
        return sum(file.stat().st_size + file.stat().st_mtime_ns for file in runs.glob("*/metrics.jsonl"))

    before = written()
    while written() == before and process.poll() is None:
        time.sleep(0.002)
