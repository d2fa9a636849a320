"""Sweeps on a real Ray cluster of two nodes: every trial once, with the numbers of the local executor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.studies import open_studies
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import write_tiny
from tests.integration.ray_cluster import QUIET, RayCluster, ray_cluster, why_not
from tests.integration.runs import assert_same_run, only_sweep
from tests.integration.unpainted import COMMAND

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

ABLATION = """\
name: faults
base: tiny.yaml
baseline: smooth
arms:
  smooth: {}
  l2: {loss: l2}
seeds: [0, 1]
overrides: {training.epochs: 60, probe.every_epochs: 30, training.checkpoint_every_steps: 20}
"""
TIMES = ["training_seconds", "images_per_second"]
SECONDS = 240.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path_factory.mktemp("ray") / "log") as cluster:
        yield cluster


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class SweepCommand:
    """`jepa-lab sweep`, again and again with one folder."""

    def __init__(self, folder: Path, prefix: Callable[[list[str]], list[str]], *options: str) -> None:
        write_tiny(folder)
        (folder / "ablation.yaml").write_text(ABLATION)
        command = [*COMMAND, "sweep", str(folder / "ablation.yaml")]
        self._command = prefix([*command, "--sweeps", str(folder / "sweeps"), *options])
        self.folder, self.said = folder, folder / "said"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.said, "wb") as output:
            self.process = subprocess.Popen(self._command, env=QUIET, stdout=output, stderr=output)

    def wait_for(self, words: str) -> None:
        until(lambda: words in self.text() or self.ended(), words)
        assert words in self.text()

    def ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def text(self) -> str:
        return self.said.read_text()

    def end(self, number: int) -> int:
        """Send a signal and wait."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def finish(self) -> int:
        assert self.process is not None
        return self.process.wait(2 * SECONDS)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def sweep(self) -> SweepFolder:
        return only_sweep(self.folder / "sweeps")

    def workers(self) -> dict[str, int]:
        """Process of each attempt that is at work, by the attempt."""
        found = {}
        for hello in self.folder.glob("sweeps/*/tasks/*.hello"):
            pid = json.loads(hello.read_text())["pid"]
            # Not one whose Ray worker is gone, which saves its state and ends.
            if "jepa_lab.sweeps.worker" in _command_of(pid) and _command_of(_parent_of(pid)).startswith("ray::"):
                found[hello.name.partition(".")[0]] = pid
        return found

    def wait_for_training(self) -> int:
        """Process of a worker that has trained something since it began."""
        before = {path: path.stat().st_size for path in self._metrics()}

        def grown() -> bool:
            return any(path.stat().st_size > before.get(path, 0) for path in self._metrics())

        until(lambda: (grown() and self.workers()) or self.ended(), "training")
        assert not self.ended(), self.text()
        return next(iter(self.workers().values()))

    def _metrics(self) -> list[Path]:
        return list(self.folder.glob("sweeps/*/trials/*/metrics.jsonl"))


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0


def assert_same_sweep(sweep: SweepFolder, whole: SweepFolder) -> None:
    """Every trial was finished once, bitwise as in the other sweep, and the table is the same."""
    tables = []
    for folder in (sweep, whole):
        trials = report_input(folder, open_studies(folder, None)).trials.sort_values(["arm", "seed"])
        assert list(trials["status"]) == ["FINISHED"] * 4
        assert len([path for path in folder.trials.iterdir() if not path.name.startswith(".")]) == 4
        tables.append(trials.reset_index(drop=True))
    first, second = (table.drop(columns=["run_folder", "number", *TIMES]) for table in tables)
    assert first.equals(second)
    for one, other in zip(*(table["run_folder"] for table in tables), strict=True):
        assert_same_run(RunFolder.open(Path(one)), RunFolder.open(Path(other)))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepCommand]:
    """The same sweep by the local executor, which runs while the cluster starts."""
    sweep = SweepCommand(tmp_path_factory.mktemp("local"), list, "--slots", "2")
    sweep.start()
    yield sweep
    sweep.kill()


def test_a_sweep_survives_the_loss_of_workers_nodes_and_its_parent(
    local: SweepCommand, cluster: RayCluster, tmp_path: Path
) -> None:
    where = f"address={cluster.address}"
    ray = SweepCommand(tmp_path, cluster.inside, "--executor", "ray", "--executor-option", where)
    try:
        ray.start()
        os.kill(_parent_of(ray.wait_for_training()), signal.SIGKILL)
        ray.wait_for("its Ray worker was killed on ")
        cluster.order(f"lose {_parent_of(_parent_of(ray.wait_for_training()))}")
        ray.wait_for("the node of its worker died on ")
        cluster.order("gain")
        assert re.search(r"see \S+/tasks/arm-\d+-\d+\.log; another worker resumes it", ray.text())
        ray.wait_for_training()
        assert ray.end(signal.SIGKILL) == -signal.SIGKILL
        ray.start()  # while workers of the first command may still save their state
        ray.wait_for("3 nodes")
        ray.wait_for_training()
        assert ray.end(signal.SIGINT) == 130
        until(lambda: not ray.workers(), "the end of all workers")
        ray.start()
        assert ray.finish() == 0, ray.text()
    finally:
        ray.kill()
    assert local.finish() == 0, local.text()
    assert_same_sweep(ray.sweep, local.sweep)
