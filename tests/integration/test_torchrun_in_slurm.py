"""One run on the nodes of a Slurm job, which resumes it after Slurm has taken the nodes away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.pipelines import write_tiny
from tests.integration.runs import timeless_rows
from tests.integration.slurm_cluster import SlurmCluster, slurm_cluster, wait_for, why_not
from tests.integration.team import free_port
from tests.integration.test_distributed import only_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

LONG = ("training.epochs=60", "training.checkpoint_every_steps=10", "probe.every_epochs=20")
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=run
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={folder}/output
export GLOO_SOCKET_IFNAME=lo
exec srun --kill-on-bad-exit=1 {python} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 \\
    --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{port} --rdzv-id "$SLURM_JOB_ID" \\
    -m jepa_lab run {file} {overrides} --runs {folder}/runs --resume auto
"""


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    with slurm_cluster() as cluster:
        yield cluster


def test_a_job_that_slurm_requeues_resumes_its_run(cluster: SlurmCluster, tmp_path: Path) -> None:
    script, file = tmp_path / "run.sbatch", write_tiny(tmp_path)
    values = {"folder": tmp_path, "python": sys.executable, "port": free_port(), "file": file}
    script.write_text(SCRIPT.format(**values, overrides=" ".join(LONG)))
    number = cluster.run("sbatch", "--parsable", str(script)).strip()
    wait_for(lambda: any(tmp_path.glob("runs/*/checkpoints/*10")), "a checkpoint", seconds=200)
    cluster.run("scontrol", "requeue", number)
    wait_for(lambda: cluster.jobs()["run"][0] == "PENDING", "the end of the first start", seconds=100)
    cluster.run("scontrol", "update", f"job={number}", "StartTime=now")  # Slurm would wait for two minutes
    wait_for(lambda: not cluster.jobs(), "the end of the job", seconds=300)
    output = (tmp_path / "output").read_text()
    assert "error: stopped by SIGTERM (the last checkpoint is at step" in output
    assert "resuming from step " in output
    assert "JobState=COMPLETED" in cluster.run("scontrol", "show", "job", number)
    folder = only_run(tmp_path / "runs")
    result = folder.read_result()
    assert result is not None
    assert (result["status"], result["last_step"]) == ("FINISHED", 300)
    steps = [step for step, metrics in timeless_rows(folder) if "train/loss" in metrics]
    assert steps == sorted(set(steps))
