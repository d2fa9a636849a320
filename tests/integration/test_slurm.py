"""Sweeps on a real Slurm cluster of two nodes: every trial once, with the numbers of the local executor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.studies import open_studies
from tests.integration.slurm_cluster import SlurmCluster, slurm_cluster, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

ABLATION = """\
name: faults
base: digits
baseline: blocks
arms:
  blocks: {}
  random: {masker: random}
seeds: [0, 1]
resources: {cpus: 1, memory: 1G}
"""
QUICK = ["--executor-option", "poll_seconds=0.5", "--executor-option", "grace_seconds=1"]
SMOKE = ["--preset", "smoke", "tracking=none", "training.device=cpu", "training.num_threads=1"]
TIMES = ["training_seconds", "images_per_second"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    with slurm_cluster() as cluster:
        yield cluster


def command(folder: Path, *more: str) -> list[str]:
    file = folder / "ablation.yaml"
    if not file.exists():
        file.write_text(ABLATION)
    return [sys.executable, "-m", "jepa_lab", "sweep", str(file), "--sweeps", str(folder / "sweeps"), *SMOKE, *more]


def test_a_sweep_on_two_nodes_has_the_numbers_of_one_on_this_machine(cluster: SlurmCluster, tmp_path: Path) -> None:
    sweep = command(tmp_path, "--executor", "slurm", *QUICK, "--quiet")
    done = subprocess.run(sweep, env=cluster.environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    opened = SweepFolder.open(Path(done.stdout.strip()))
    trials = report_input(opened, open_studies(opened, None)).trials
    assert list(trials["status"]) == ["FINISHED"] * 4
    assert len(os.listdir(opened.trials)) == 4
