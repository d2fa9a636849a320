"""What each slot of this machine gets: CPU threads, a GPU, a part of its memory, and MPS where several share it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from jepa_lab.sweeps.sharing.memory import free_memory, refuse_small_shares, share_of
from jepa_lab.sweeps.sharing.mps import MOST_CLIENTS, MpsDaemon, given_pipes, is_at_work, start_daemon
from jepa_lab.sweeps.sharing.mps_keeper import PIPES
from jepa_lab.waiting_threads import spin_briefly

_WITHOUT_MPS = "trials that share a GPU take turns on it; with NVIDIA MPS they would run on it at once"


class Slots:
    """The parts of a machine, a slot each; GPUs are given out in turn.

    Args:
        number: how many slots there are at first.
        gpus: names for CUDA_VISIBLE_DEVICES; none where nothing trains on a GPU.
        folder: for the logs of MPS daemons.
        mps: whether slots that share a GPU use MPS where they can; a benchmark measures what it brings.
        cpus: CPU cores of each slot; None divides the machine.

    Attributes:
        threads: CPU threads of each slot.
        sentences: how slots share a GPU, in words.
        uses_mps: whether they do so by MPS.
    """

    def __init__(self, number: int, gpus: list[str], folder: Path, mps: bool = True, cpus: int | None = None) -> None:
        self.number, self.gpus = number, gpus
        self.threads = cpus or max(1, num_cores() // number)
        self.sentences: list[str] = []
        self.uses_mps = False
        self._nowhere = None if mps else folder / "no-mps"
        self._free = free_memory(tuple(gpus)) if self._share_gpus() else None
        self._daemons: dict[int, MpsDaemon] = {}
        if self._free is not None:
            self._arrange_mps(folder)

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of a process in a slot."""
        found = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        spin_briefly(found)
        if self.gpus:
            index = slot % len(self.gpus)
            found["CUDA_VISIBLE_DEVICES"] = self.gpus[index]
            if index in self._daemons:
                found |= self._daemons[index].environment()
        if self._nowhere is not None:
            found[PIPES] = str(self._nowhere)  # CUDA looks for a daemon there, and does without
        return found

    def inherited(self, slot: int) -> list[int]:
        """File descriptors that a process in a slot must inherit: its MPS daemon stays while they are open."""
        daemon = self._daemons.get(slot % len(self.gpus)) if self.gpus else None
        return [] if daemon is None else [daemon.holder]

    def memory_bytes(self, slot: int, number: int) -> int | None:
        """GPU memory for the tensors of a slot when so many are in use; None where it has the GPU alone."""
        if self._free is None or self._sharing(slot, number) == 1:
            return None
        return share_of(self._free[slot % len(self.gpus)], self._sharing(slot, number))

    def close(self) -> None:
        """End the MPS daemons; all processes in slots must have ended."""
        with ExitStack() as stack:
            for daemon in self._daemons.values():
                stack.callback(daemon.close)
        self._daemons.clear()

    def _share_gpus(self) -> bool:
        return 0 < len(self.gpus) < self.number

    def _sharing(self, slot: int, number: int) -> int:
        """How many of the first `number` slots have the GPU of a slot."""
        return max(1, len(range(slot % len(self.gpus), number, len(self.gpus))))

    def _arrange_mps(self, folder: Path) -> None:
        """Find out how the slots share their GPUs, and start MPS where nobody has decided otherwise."""
        pipes = given_pipes()
        if self._nowhere is not None:
            self.sentences.append(_WITHOUT_MPS)
        elif pipes is not None and is_at_work(pipes):
            self.uses_mps = True
            self.sentences.append(f"trials that share a GPU run on it at once, by the MPS daemon of {pipes}")
        elif PIPES in os.environ:  # set to a place without a daemon: NVIDIA's own way to do without
            self.sentences.append(f"{_WITHOUT_MPS}: {PIPES} is set, and no daemon is there; unset it to have one here")
        else:
            self._start_mps(folder)

    def _start_mps(self, folder: Path) -> None:
        shared = [index for index in range(len(self.gpus)) if self._sharing(index, self.number) > 1]
        for index in shared:
            clients = self._sharing(index, self.number)
            daemon = (
                start_daemon(self.gpus[index], folder)
                if clients <= MOST_CLIENTS
                else f"which serves at most {MOST_CLIENTS} on a GPU, and {clients} share GPU {self.gpus[index]}"
            )
            if isinstance(daemon, str):
                self.close()
                self.sentences.append(f"{_WITHOUT_MPS} ({daemon})")
                return
            self._daemons[index] = daemon
        self.uses_mps = True
        self.sentences.append("trials that share a GPU run on it at once, by NVIDIA MPS")


def refuse_too_many(number: int, gpus: list[str], option: str) -> None:
    """So many slots must fit in the memory that is free on their GPUs.

    Raises:
        ConfigError: naming how many would.
    """
    if 0 < len(gpus) < number:
        for index, free in enumerate(free_memory(tuple(gpus)) or ()):
            sharing = len(range(index, number, len(gpus)))
            refuse_small_shares(gpus[index], free, sharing, option)


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Names of the GPUs for CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
