"""A Ray cluster of two nodes on this machine, for tests: in a network namespace that has nothing but loopback.

`python -m tests.integration.ray_cluster`, in such a namespace, starts it, prints its address, and follows orders from
its standard input: `lose PID` kills the node of this raylet, `gain` adds a node, `end` ends the head. It ends when its
input does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

_TOOLS = ("unshare", "nsenter", "ip")
_REPOSITORY = Path(__file__).parents[2]
QUIET = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
QUIET["RAY_worker_niceness"] = "0"  # by default Ray's workers wait for every other process, such as other tests


def why_not() -> str | None:
    """Why a cluster cannot be started here; None where it can."""
    if find_spec("ray") is None:
        return "Ray is not installed"
    missing = [name for name in _TOOLS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    isolated = subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return None if isolated.returncode == 0 else "a network namespace is made as root"


class RayCluster:
    """The cluster, while it runs.

    Attributes:
        address: of its head, within the namespace.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, to be run in the cluster's namespace."""
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", *command]

    def order(self, word: str) -> None:
        """Let it do something, and wait until it has."""
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the cluster has ended"
        return line.strip()


@contextmanager
def ray_cluster(log: Path, **environment: str) -> Iterator[RayCluster]:
    """A cluster with two nodes of one CPU each beside its head, which has none."""
    command = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    command += [sys.executable, "-m", "tests.integration.ray_cluster"]
    # Not a folder of pytest's: the paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder, open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            env={**QUIET, "RAY_TMPDIR": folder, **environment},
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
        try:
            yield RayCluster(process)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _follow(cluster: Cluster, word: str, *pid: str) -> None:
    if word == "gain":
        cluster.add_node(num_cpus=1)
        return
    lost = (
        cluster.head_node if word == "end" else next(node for node in cluster.worker_nodes if _raylet(node) == pid[0])
    )
    cluster.remove_node(lost, allow_graceful=False)


def _raylet(node: Node) -> str:
    return str(node.all_processes["raylet"][0].process.pid)


def main() -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    # Ray prints to the standard output too; it is left to the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for number in range(2):
        cluster.add_node(num_cpus=1, wait=number == 1)
    print(cluster.address, file=answers, flush=True)
    for line in sys.stdin:
        _follow(cluster, *line.split())
        print("done", file=answers, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
