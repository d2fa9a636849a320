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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.training.distributed import joined_team
from tests.integration.pipelines import write_tiny


def torchrun(folder: Path, runs: Mapping[str, Sequence[str]], size: int = 2) -> None:
    """Train the tiny pipeline in `size` processes, once with each of the overrides; `FOLDER/NAME` holds the run."""
    write_tiny(folder)
    (folder / "runs.json").write_text(json.dumps(runs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    subprocess.run([*command, "-m", "tests.integration.team", str(folder)], check=True, timeout=600)


def forked_team(folder: Path, work: Callable[[int], object], size: int = 2) -> list[int]:
    """Call `work(rank)` in processes that believe that torchrun has started them.

    Returns:
        Their exit codes, by rank; minus the number of a signal that ended one. What each printed is in
        `FOLDER/rank-0.out` and so on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
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
