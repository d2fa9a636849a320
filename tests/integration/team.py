"""Several processes for tests of runs that they train together.

`python -m torch.distributed.run ... -m tests.integration.team FOLDER` trains every pipeline that `FOLDER/runs.json`
names, one after another. `forked_team` starts processes as torchrun would, without the seconds of importing torch.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.training.distributed import joined_team
from tests.integration.pipelines import write_tiny

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def torchrun(folder: Path, runs: Mapping[str, Sequence[str]], size: int = 2) -> None:
    """Train the tiny pipeline in `size` processes, once with each of the overrides; `FOLDER/NAME` holds the run."""
    work = _write_runs(folder, runs)
    subprocess.run([*TORCHRUN, "--standalone", "--nproc-per-node", str(size), *work], check=True, timeout=600)


def torchrun_on_two_machines(folder: Path, runs: Mapping[str, Sequence[str]]) -> None:
    """The same by two agents of one process each, as if each were on a machine of its own."""
    ended = two_agents(_write_runs(folder, runs), *static_rendezvous())
    assert [code for code, _ in ended] == [0, 0], ended


def static_rendezvous() -> tuple[str, ...]:
    """Options of torchrun."""
    return "--master-addr", "127.0.0.1", "--master-port", str(free_port())


def two_agents(
    work: Sequence[str],
    *options: str,
    folders: Sequence[Path | None] = (None, None),
    environment: Mapping[str, str] | None = None,
) -> list[tuple[int, str]]:
    """`torchrun --nnodes 2 OPTIONS WORK` twice at the same time, over the loopback interface.

    Args:
        folders: current folder of each.
        environment: more variables.
    Returns:
        Exit code and standard error of each.
    """
    command = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", *options]
    variables = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", **(environment or {})}
    with ExitStack() as stack:
        agents = []
        for rank, folder in enumerate(folders):
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            agent = subprocess.Popen(
                [*command, "--node-rank", str(rank), *work], cwd=folder, env=variables, stderr=errors
            )
            stack.callback(_end, agent)
            agents.append((agent, errors))
        ended = []
        for agent, errors in agents:
            code = agent.wait(timeout=300)
            errors.seek(0)
            ended.append((code, errors.read()))
        return ended


def _end(agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()  # nothing happens to one that has ended
    agent.wait()


def _write_runs(folder: Path, runs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What torchrun starts, to train these."""
    write_tiny(folder)
    (folder / "runs.json").write_text(json.dumps(runs))
    return "-m", "tests.integration.team", str(folder)


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def forked_team(folder: Path, work: Callable[[int], object], size: int = 2) -> list[int]:
    """Call `work(rank)` in processes that believe that torchrun has started them.

    Returns:
        Their exit codes, by rank; minus the number of a signal that ended one. What each printed is in
        `FOLDER/rank-0.out` and so on.
    """
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            _become(rank, size, port, folder)
            work(rank)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _become(rank: int, size: int, port: int, folder: Path) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(number) for name, number in numbers.items()}}
    output = os.open(folder / f"rank-{rank}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115


def main() -> None:
    """Train what `runs.json` names."""
    folder = Path(sys.argv[1])
    with joined_team() as team:
        for name, overrides in json.loads((folder / "runs.json").read_text()).items():
            start_run(load_pipeline(folder / "tiny.yaml", overrides), folder / name, [], team=team)


if __name__ == "__main__":
    main()
