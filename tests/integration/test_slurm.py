"""Sweeps on a real Slurm cluster of two nodes: every trial once, with the numbers of the local executor."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.studies import open_studies
from tests.integration.runs import only_sweep
from tests.integration.slurm_cluster import NODES, SlurmCluster, slurm_cluster, wait_for, why_not
from tests.integration.unpainted import COMMAND

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

ABLATION = """\
name: faults
base: digits
baseline: blocks
arms:
  blocks: {}
  random: {masker: random}
seeds: [0, 1]
"""
PIPELINE = ["tracking=none", "training.device=cpu", "training.num_threads=1", "training.checkpoint_every_steps=20"]
QUICK = ["poll_seconds=0.5", "grace_seconds=1", "partition=low"]
TRIALS = [f"arm-{number:04d}" for number in range(4)]
MEASURED = ["number", "run_folder", "training_seconds", "images_per_second"]
_PATIENCE = 400.0


class Command:
    """`jepa-lab sweep` of one ablation, as often as a test gives it.

    Args:
        epochs: of each trial, which must be at work when the test spoils it.
    """

    def __init__(self, folder: Path, cluster: SlurmCluster, epochs: int) -> None:
        self.folder, self.cluster, self.epochs = folder, cluster, epochs
        folder.mkdir(exist_ok=True)
        self.file = folder / "ablation.yaml"
        self.file.write_text(ABLATION)
        self.process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> None:
        """Give the command, and do not wait for its end."""
        options = ["--preset", "smoke", "--sweeps", str(self.folder / "sweeps"), *more]
        words = [*COMMAND, "sweep", str(self.file), *PIPELINE, f"training.epochs={self.epochs}"]
        self.process = subprocess.Popen(
            [*words, *options],
            env=self.cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start_on_slurm(self, *more: str) -> None:
        """The same on the cluster."""
        options = [word for option in QUICK for word in ("--executor-option", option)]
        self.start("--executor", "slurm", "--cpus", "1", "--memory", "1G", *options, *more)

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """Code and output of the command, which may be sent a signal."""
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=_PATIENCE)
        return self.process.returncode, output

    def close(self) -> None:
        """Leave no process behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def sweep(self) -> SweepFolder:
        """Its folder."""
        return only_sweep(self.folder / "sweeps")

    def trials(self) -> pd.DataFrame:
        """What must not depend on who trained the trials, or how often they were spoiled."""
        trials = report_input(self.sweep, open_studies(self.sweep, None)).trials
        return trials.drop(columns=MEASURED).sort_values(["arm", "seed"]).reset_index(drop=True)

    def attempts(self) -> dict[str, int]:
        """How many jobs there were for each trial."""
        return {name: len(list((self.sweep.path / "tasks").glob(f"{name}-*.task"))) for name in TRIALS}

    def outcome(self, trial: str, attempt: int) -> str | None:
        """What an attempt replied; None before it did."""
        try:
            return str(json.loads((self.sweep.path / "tasks" / f"{trial}-{attempt}.reply").read_text())["outcome"])
        except FileNotFoundError:
            return None

    def worker(self, trial: str) -> int:
        """Process of the newest attempt at a trial."""
        hello = max((self.sweep.path / "tasks").glob(f"{trial}-*.reply.hello"))
        return int(json.loads(hello.read_text())["pid"])

    def wait_until_training(self, *trials: str) -> None:
        """Until each of these trials has a worker, which has saved something since this was called."""
        before = {name: self.last_step(name) for name in trials}
        for name, step in before.items():
            wait_for(lambda name=name, step=step: self.last_step(name) > step, f"a step of {name}", _PATIENCE)

    def last_step(self, trial: str) -> int:
        """The last one that a trial has written; -1 for none."""
        tasks = self.sweep.path / "tasks"
        found = [json.loads(path.read_text())["claim"] for path in tasks.glob(f"{trial}-*.task")]
        runs = list(self.sweep.trials.glob(f"{Path(found[0]).stem}*")) if found else []
        assert len(runs) <= 1, "a trial has one run folder"
        metrics = runs[0] / "metrics.jsonl" if runs else None
        lines = metrics.read_text().splitlines() if metrics is not None and metrics.exists() else []
        return int(json.loads(lines[-1])["step"]) if lines else -1


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def command(tmp_path: Path, cluster: SlurmCluster) -> Iterator[Command]:
    made = Command(tmp_path / "slurm", cluster, epochs=16)
    yield made
    made.close()


@pytest.fixture
def local(tmp_path: Path, cluster: SlurmCluster) -> Iterator[Command]:
    made = Command(tmp_path / "local", cluster, epochs=16)
    yield made
    made.close()


def jobs_of(cluster: SlurmCluster, *trials: str) -> list[str]:
    """The numbers of their jobs."""
    return [number for name, number in cluster.job_ids().items() if name.rpartition("-")[0].endswith(trials)]


def test_whatever_is_killed_every_trial_finishes_once_with_the_numbers_of_one_machine(
    cluster: SlurmCluster, command: Command, local: Command
) -> None:
    command.start_on_slurm()
    wait_for(lambda: len(cluster.jobs()) == 4, "four jobs", _PATIENCE)
    command.wait_until_training(TRIALS[0])
    code, output = command.end(signal.SIGINT)
    assert code == 130, output
    assert "run the same command again to resume" in output
    replies = (command.sweep.path / "tasks").glob("*-1.reply")
    assert [json.loads(path.read_text())["outcome"] for path in replies] == ["interrupted"] * 4
    wait_for(lambda: not cluster.jobs(), "the end of the jobs")

    command.start_on_slurm()
    wait_for(lambda: len(cluster.jobs()) == 4, "four jobs", _PATIENCE)
    command.wait_until_training(TRIALS[0])
    os.kill(command.worker(TRIALS[0]), signal.SIGKILL)
    command.end(signal.SIGKILL)
    preempted = [name for name, (_, node) in cluster.jobs().items() if node == "node2"]
    assert preempted
    cluster.run("sbatch", "--partition=main", "--nodelist=node2", "--exclusive", "--output=/dev/null", "--wrap=true")
    wait_for(lambda: all(cluster.jobs()[name][0] == "PENDING" for name in preempted), "the jobs to be preempted")
    for number in jobs_of(cluster, *TRIALS):
        with contextlib.suppress(AssertionError):  # of those that run: nothing would change
            cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")

    command.start_on_slurm()
    local.start("--executor", "local", "--slots", "1")
    code, output = command.end()
    assert code == 0, output
    assert local.end()[0] == 0
    assert len(list(command.sweep.trials.iterdir())) == 4
    pd.testing.assert_frame_equal(command.trials(), local.trials())
    assert command.attempts() == {TRIALS[0]: 3, **dict.fromkeys(TRIALS[1:], 2)}, "one more after Ctrl-C, and the kill"


def test_a_node_that_does_not_see_the_folder_is_named(cluster: SlurmCluster, command: Command) -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$1" && shift && exec "$@"', "sh"]
    cluster.stop_node("node2")
    cluster.start_node("node2", *hidden, str(command.folder))
    try:
        command.start_on_slurm("--executor-option", "nodelist=node2")
        code, output = command.end()
    finally:
        cluster.stop_node("node2")
        cluster.start_node("node2")
    assert code == 2
    assert "on node2" in output
    assert "put the sweep on a file system that all nodes share" in output


@pytest.mark.slow
def test_lost_nodes_and_time_limits_cost_no_trial(cluster: SlurmCluster, command: Command, local: Command) -> None:
    command.start_on_slurm()
    wait_for(lambda: len(cluster.jobs()) == 4, "four jobs", _PATIENCE)
    command.wait_until_training(*TRIALS)
    trials = {node: [_trial(name) for name, (_, at) in cluster.jobs().items() if at == node] for node in NODES}
    (orphan, dead), (limited, other) = trials["node1"], trials["node2"]
    pids = {trial: command.worker(trial) for trial in (orphan, dead, limited)}
    cluster.kill_node("node1")
    for pid in pids.values():  # so that they are at work for as long as it takes
        os.kill(pid, signal.SIGSTOP)
    try:
        (number,) = jobs_of(cluster, limited)
        cluster.run("scontrol", "update", f"JobId={number}", "TimeLimit=1")
        local.start("--executor", "local", "--slots", "1")
        wait_for(lambda: not _running(cluster) & {orphan, dead}, "the loss of node1", 120.0)
        os.kill(pids[dead], signal.SIGKILL)
        cluster.start_node("node1")
        wait_for(lambda: "idle" in cluster.run("sinfo", "-h", "-n", "node1", "-o", "%T"), "node1")
        for number in jobs_of(cluster, orphan, dead):
            cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")
        wait_for(lambda: command.outcome(orphan, 1) == "busy", "the trial to be busy", _PATIENCE)
        wait_for(lambda: command.outcome(limited, 1) == "interrupted", "the time limit", _PATIENCE)
    finally:
        for trial, pid in pids.items():
            if trial != dead:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    code, output = command.end()
    assert code == 0, output
    assert "another process is at work on" in output
    assert local.end()[0] == 0
    assert len(list(command.sweep.trials.iterdir())) == 4
    pd.testing.assert_frame_equal(command.trials(), local.trials())
    attempts = command.attempts()
    assert (attempts[limited], attempts[other]) == (2, 1)


def _trial(job: str) -> str:
    return next(name for name in TRIALS if name in job)


def _running(cluster: SlurmCluster) -> set[str]:
    return {_trial(name) for name, (state, _) in cluster.jobs().items() if state == "RUNNING"}
