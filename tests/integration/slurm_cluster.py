"""A Slurm cluster of two nodes on this machine, for tests: real daemons on loopback, two fake GPUs a node."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NODES = ("node1", "node2")
_DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
_SECONDS = 30.0
_SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MpiDefault=none
KillWait=10
MinJobAge=600
SlurmdTimeout=5
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=2 RealMemory=8000 Gres=gpu:2
DefMemPerCPU=1000
PartitionName=main Nodes=node[1-2] Default=YES PriorityTier=10
PartitionName=low Nodes=node[1-2] PriorityTier=1 PreemptMode=REQUEUE
"""
_GPUS = "AutoDetect=off\nNodeName=node[1-2] Name=gpu File={folder}/gpu[0-1]\n"


def why_not() -> str | None:
    """Why a cluster cannot be started here; None where it can."""
    if os.geteuid() != 0:
        return "Slurm's daemons are started as root"
    missing = [name for name in _DAEMONS if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)" if missing else None


class SlurmCluster:
    """The cluster, while it runs.

    Attributes:
        folder: of its files. environment: of a process that is to use it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start all daemons, and wait for the nodes."""
        self._start_munge()
        host, ports = socket.gethostname().split(".")[0], _free_ports(3)
        settings = _SETTINGS.format(host=host, ports=ports, folder=self.folder)
        (self.folder / "slurm.conf").write_text(settings)
        (self.folder / "gres.conf").write_text(_GPUS.format(folder=self.folder))
        for number in range(2):
            os.mknod(self.folder / f"gpu{number}", 0o20666, os.makedev(1, 3))  # as /dev/null
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", "two idle nodes")

    def start_controller(self) -> None:
        """Start slurmctld, which finds the jobs that it knew."""
        self.run("slurmctld", "-f", self.environment["SLURM_CONF"])

    def start_node(self, node: str, *inside: str) -> None:
        """Start the slurmd of a node.

        Args:
            inside: command that runs it, such as `unshare`.
        """
        self.run(*inside, "slurmd", "-f", self.environment["SLURM_CONF"], "-N", node)
        wait_for(lambda: self.pid(f"slurmd-{node}") is not None, f"the pid of {node}")

    def stop_node(self, node: str) -> None:
        """End the slurmd of a node."""
        self._end(f"slurmd-{node}", signal.SIGTERM)

    def stop_controller(self) -> None:
        """End slurmctld; jobs run on."""
        self._end("slurmctld", signal.SIGTERM)

    def kill_node(self, node: str) -> None:
        """A node that vanishes: its daemons are killed, and the processes of its jobs are left alone."""
        for pid in self._steps(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._end(f"slurmd-{node}", signal.SIGKILL)

    def run(self, *command: str) -> str:
        """What a command of Slurm prints.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """State and node of every job that has not ended, by its name."""
        lines = self.run("squeue", "-h", "-o", "%j|%T|%N").splitlines()
        return {name: (state, node) for name, state, node in (line.split("|") for line in lines)}

    def job_ids(self) -> dict[str, str]:
        """The number of every job that has not ended, by its name."""
        return dict(line.split("|") for line in self.run("squeue", "-h", "-o", "%j|%i").splitlines())

    def pid(self, daemon: str) -> int | None:
        """Of a daemon, by its pid file."""
        try:
            return int((self.folder / f"{daemon}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def close(self) -> None:
        """End the jobs, then the daemons."""
        subprocess.run(
            ["scancel", "--user=root", "--signal=KILL", "--full"], env=self.environment, timeout=60, check=False
        )
        subprocess.run(["scancel", "--user=root"], env=self.environment, timeout=60, check=False)
        for daemon in (*(f"slurmd-{node}" for node in NODES), "slurmctld"):
            self._end(daemon, signal.SIGTERM)
        self._end("munge/munged", signal.SIGTERM)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.mkdir()
        key = folder / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for path in (folder, key):
            shutil.chown(path, "munge", "munge")
        places = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "munged.pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        self.run(
            "runuser", "-u", "munge", "--", "munged", *(f"--{key}={folder / name}" for key, name in places.items())
        )

    def _steps(self, node: str) -> list[int]:
        """The slurmstepd of a node's jobs, which slurmd has started."""
        log = f"{self.folder}/slurmd-{node}.log"
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "comm").read_text().strip() != "slurmstepd":
                    continue
                if log in [os.readlink(each) for each in (path / "fd").iterdir()]:
                    found.append(int(path.name))
        assert found, f"no job on {node}"
        return found

    def _end(self, daemon: str, number: signal.Signals) -> None:
        pid = self.pid(daemon)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        wait_for(lambda: not _is_alive(pid), f"the end of {daemon}")
        (self.folder / f"{daemon}.pid").unlink(missing_ok=True)


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A cluster of its own, which ends with the block."""
    # Not a folder of pytest's: munge, another user, must reach it, and a socket's path may be 107 characters long.
    with tempfile.TemporaryDirectory(prefix="jepa-lab-slurm-") as name:
        os.chmod(name, 0o755)
        cluster = SlurmCluster(Path(name))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = _SECONDS) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not for so long.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    """Ports that follow each other and that nobody listens on."""
    for first in range(17000 + os.getpid() % 1000, 30000, number):
        ports = list(range(first, first + number))
        with contextlib.ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return ports
    raise AssertionError("no free ports")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
