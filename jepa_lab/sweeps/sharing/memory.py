"""GPU memory that trials share: how much is free, what each may use, and the bound in the process of a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

from jepa_lab.errors import ConfigError

GIB = 2**30
CONTEXT_BYTES = int(0.6 * GIB)
"""What a process holds beside its tensors: its CUDA context, loaded kernels, handles of libraries. An estimate."""
LEAST_BYTES = GIB // 2
"""For tensors: with less a trial cannot be meant to run."""

_ASK = (
    "import json, torch; print(json.dumps([torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]))"
)
_ASK_SECONDS = 120.0


@cache
def free_memory(gpus: tuple[str, ...]) -> tuple[int, ...] | None:
    """Bytes that are free on each GPU, or None where CUDA does not work: then nothing trains on them either.

    A process of its own asks, because a CUDA context stays as long as its process.

    Args:
        gpus: their names for CUDA_VISIBLE_DEVICES.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", _ASK],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    if asked.returncode != 0:
        return None
    free = tuple(json.loads(asked.stdout.splitlines()[-1]))
    return free if len(free) == len(gpus) else None


def share_of(free: int, slots: int) -> int:
    """Bytes for the tensors of each of some slots that share a GPU."""
    return free // slots - CONTEXT_BYTES


def refuse_small_shares(gpu: str, free: int, slots: int, option: str) -> None:
    """So many slots must leave each of them something to train with.

    Args:
        option: the one that asks for so many slots, as it was given.
    Raises:
        ConfigError: naming how many would.
    """
    if slots == 1 or share_of(free, slots) >= LEAST_BYTES:
        return
    most = max(1, free // (CONTEXT_BYTES + LEAST_BYTES))
    raise ConfigError(
        f"{option} lets {slots} trials share GPU {gpu}, which has {free / GIB:.1f} GiB free: each needs about "
        f"{CONTEXT_BYTES / GIB:.1f} GiB for its CUDA context and at least {LEAST_BYTES / GIB:.1f} GiB for its tensors; "
        f"let {most} trial{'s' if most > 1 else ''} or fewer share a GPU"
    )


def bound_gpu_memory(num_bytes: int | None) -> None:
    """Let PyTorch use so much of the GPU in this process, captured graphs included; None is all of it."""
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(1.0 if num_bytes is None else min(1.0, num_bytes / total))
