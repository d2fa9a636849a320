"""NVIDIA MPS for the trials of a sweep: kernels of several processes run on a GPU at once, instead of in turns.

A daemon that is there already is used and left alone. Else the sweep starts one for each GPU that trials share, which
sees this GPU alone: a fault of one GPU is then not that of the others', and trials see it as device 0. How much of the
GPU a client may use (CUDA_MPS_ACTIVE_THREAD_PERCENTAGE) is not limited: trials load, train and probe at different
times, and a limit would leave idle what the others could use meanwhile.

Source: NVIDIA, Multi-Process Service, docs.nvidia.com/deploy/mps.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.sweeps.sharing import mps_keeper
from jepa_lab.sweeps.sharing.mps_keeper import LOGS, PIPES, READY, TOOL, answers
from jepa_lab.tracking.atomic import explained_writes

_DEFAULT_PIPES = Path("/tmp/nvidia-mps")
_ROOT = Path("/tmp")  # sockets must be on a local disk, and their paths be shorter than 108 bytes
_CLOSE_SECONDS = 60.0
MOST_CLIENTS = 48
"""Of a daemon on one GPU, by NVIDIA's documentation for Volta and later; one client more could not use CUDA at all."""


@dataclass
class MpsDaemon:
    """A daemon of our own for one GPU, and the keeper that ends it."""

    gpu: str
    pipes: Path
    tool: str
    keeper: subprocess.Popen[str]

    def environment(self) -> dict[str, str]:
        """What makes a process a client of the daemon."""
        # The daemon numbers the GPUs that it sees from 0; names such as GPU-8f2c stay what they are.
        return {PIPES: str(self.pipes), "CUDA_VISIBLE_DEVICES": "0" if self.gpu.isdecimal() else self.gpu}

    @property
    def holder(self) -> int:
        """The file descriptor that keeps the daemon at work while any process has it open."""
        assert self.keeper.stdin is not None
        return self.keeper.stdin.fileno()

    def close(self) -> None:
        """Let go of the daemon, which then ends; all its clients must have ended before."""
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        self.keeper.stdin.close()
        try:
            code = self.keeper.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.keeper.kill()
            code = self.keeper.wait()
        self.keeper.stdout.close()
        if code != 0:
            mps_keeper.stop(self.tool, self.pipes)


def start_daemon(gpu: str, folder: Path) -> MpsDaemon | str:
    """A daemon for a GPU, or why there is none.

    Args:
        gpu: its name for CUDA_VISIBLE_DEVICES.
        folder: for logs; the same folder finds a daemon again that a killed sweep left behind.
    """
    tool = shutil.which(TOOL)
    if tool is None:
        return f"{TOOL} is not in PATH"
    logs = folder / f"mps-{gpu.replace('/', '_')}"  # MIG-GPU-8f2c/1/0 is the name of a part of one
    with explained_writes(logs):
        logs.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{logs.resolve()}\n{os.getuid()}".encode()).hexdigest()[:12]
    pipes = _ROOT / f"jepa-lab-mps-{digest}"
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", mps_keeper.__file__, tool, str(logs / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu, PIPES: str(pipes), LOGS: str(logs)},
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal is not for it
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    line = keeper.stdout.readline().strip()
    if line == READY:
        return MpsDaemon(gpu, pipes, tool, keeper)
    with contextlib.suppress(BrokenPipeError):
        keeper.stdin.close()
    keeper.stdout.close()
    keeper.wait()
    return line or "its keeper was killed"


def given_pipes() -> Path | None:
    """The pipe directory that CUDA programs use here by themselves, where somebody has chosen or used it; else None."""
    given = os.environ.get(PIPES)
    if given is not None:
        return Path(given)
    return _DEFAULT_PIPES if (_DEFAULT_PIPES / "control").exists() else None


def is_at_work(pipes: Path) -> bool:
    """Whether a daemon answers there; where it cannot be asked, whether it has left its pipes."""
    tool = shutil.which(TOOL)
    return answers(tool, pipes) if tool is not None else (pipes / "control").exists()
