"""Local: long-lived worker processes on this machine, one a slot."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import Field

from jepa_lab.errors import ConfigError
from jepa_lab.registry import ComponentParams
from jepa_lab.sweeps.executors.base import EXECUTORS, Executor, Reply, Task
from jepa_lab.tracking.atomic import explained_writes

_PACKAGE_ROOT = Path(__file__).resolve().parents[3]
_PATIENCE_SECONDS = 10.0


@dataclass
class _Slot:
    """A worker and its task.

    Attributes:
        replies: read end of its pipe.
        task: None while it has nothing to do.
    """

    number: int
    process: subprocess.Popen[bytes]
    replies: IO[str]
    task: Task | None = None


@EXECUTORS.register("local", summary="worker processes on this machine, each for many trials", source="this project")
class LocalExecutor(Executor):
    """One spawned worker a slot, started with its first task and replaced when it dies.

    CPU threads are divided among the slots; GPUs are given out in turn, by CUDA_VISIBLE_DEVICES, which is set before
    torch is imported.
    """

    class Params(ComponentParams):
        slots: int | None = Field(
            None, ge=1, strict=True, description="Trials to run in parallel; null: one per GPU or CPU core."
        )
        slots_per_gpu: int | None = Field(
            None, ge=1, strict=True, description="Trials that share a GPU, instead of slots; null is one."
        )

    params: Params

    def __init__(self, params: ComponentParams, logs: Path) -> None:
        super().__init__(params, logs)
        self._gpus = _visible_gpus()
        self._allowed = self.planned_slots(params)
        self._threads = max(1, num_cores() // self._allowed)
        self._slots: dict[int, _Slot] = {}

    @staticmethod
    def planned_slots(params: ComponentParams) -> int:
        assert isinstance(params, LocalExecutor.Params)
        gpus = len(_visible_gpus())
        if params.slots is not None and params.slots_per_gpu is not None:
            raise ConfigError("--slots and --slots-per-gpu both say how many trials run at once; give one of them")
        if params.slots_per_gpu is not None and not gpus:
            raise ConfigError(
                f"--slots-per-gpu {params.slots_per_gpu} needs a GPU, and this machine shows none; use --slots, which "
                f"without a number is one a CPU core ({num_cores()})"
            )
        return params.slots or (gpus * (params.slots_per_gpu or 1) if gpus else num_cores())

    @property
    def num_slots(self) -> int:
        return self._allowed

    def num_idle(self) -> int:
        return self._allowed - sum(slot.task is not None for slot in self._slots.values())

    def start(self, task: Task) -> int:
        number = next(n for n in range(self._allowed) if n not in self._slots or self._slots[n].task is None)
        if number not in self._slots:
            self._slots[number] = self._spawn(number)
        slot = self._slots[number]
        slot.task = task
        assert slot.process.stdin is not None
        try:
            slot.process.stdin.write(task.to_json().encode() + b"\n")
            slot.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; `wait` sees the end of its replies
        return number

    def wait(self, seconds: float) -> list[Reply]:
        with selectors.DefaultSelector() as selector:
            for slot in self._slots.values():
                if slot.task is not None:
                    selector.register(slot.replies, selectors.EVENT_READ, slot)
            ready = [key.data for key, _ in selector.select(seconds)]
        return [self._read(slot) for slot in ready]

    def reduce_slots(self) -> bool:
        if self._allowed == 1:
            return False
        self._allowed -= 1
        return True

    def stop(self) -> None:
        for slot in self._slots.values():
            slot.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        for slot in self._slots.values():
            assert slot.process.stdin is not None
            if slot.task is not None:
                slot.process.kill()
            with contextlib.suppress(BrokenPipeError):
                slot.process.stdin.close()
        for slot in self._slots.values():
            try:
                slot.process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
            slot.replies.close()
        self._slots.clear()

    def _read(self, slot: _Slot) -> Reply:
        """The reply of a slot, or that its worker has died (then it is replaced with the next task)."""
        assert slot.task is not None
        task, slot.task = slot.task, None
        line = slot.replies.readline()
        if line.endswith("\n"):
            return Reply.from_json(line)
        slot.process.kill()
        code = slot.process.wait()
        slot.replies.close()
        del self._slots[slot.number]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return Reply(task.number, "died", f"its worker {how}; see {self.logs / f'worker-{slot.number}.log'}")

    def _spawn(self, number: int) -> _Slot:
        reader, writer = os.pipe()
        log = self.logs / f"worker-{number}.log"
        command = [sys.executable, "-P", "-m", "jepa_lab.sweeps.worker", str(writer), str(self._threads)]
        with explained_writes(log), open(log, "ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
                env=self._environment(number),
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which passes it on
            )
        os.close(writer)
        return _Slot(number, process, os.fdopen(reader))

    def _environment(self, number: int) -> dict[str, str]:
        paths = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
        found = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": str(self._threads),
        }
        if self._gpus:
            found["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        return found


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _visible_gpus() -> list[str]:
    """Names of the GPUs for CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
