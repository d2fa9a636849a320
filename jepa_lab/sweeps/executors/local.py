"""Local: long-lived worker processes on this machine, one a slot."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pydantic import Field

from jepa_lab.errors import ConfigError
from jepa_lab.registry import ComponentParams
from jepa_lab.sweeps.executors.base import EXECUTORS, Executor, Surroundings
from jepa_lab.sweeps.executors.remote import importable_here
from jepa_lab.sweeps.resources import Needs
from jepa_lab.sweeps.sharing.memory import GIB
from jepa_lab.sweeps.sharing.slots import Slots, num_cores, refuse_too_many, visible_gpus
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.tracking.atomic import explained_writes

_PATIENCE_SECONDS = 10.0


@dataclass
class _Slot:
    """A worker and its task, as the worker was told it.

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

    What a slot has of the machine, `Slots` says: a part of the CPU threads, a GPU or its part of one. It is in the
    worker's environment before torch is imported; the worker keeps its CUDA context from trial to trial.
    """

    class Params(ComponentParams):
        slots: int | None = Field(
            None, ge=1, strict=True, description="Trials to run in parallel; null: one per GPU or CPU core."
        )
        slots_per_gpu: int | None = Field(
            None,
            ge=1,
            strict=True,
            description="Trials that share each GPU and its memory, instead of slots; null: one.",
        )

    params: Params
    keeps_workers = True
    is_remote = False

    def __init__(self, params: ComponentParams, around: Surroundings) -> None:
        super().__init__(params, around)
        self._allowed = self.planned_slots(params, around.needs)
        gpus = visible_gpus() if around.needs.on_gpu else []
        self._machine = Slots(self._allowed, gpus, around.logs, cpus=around.needs.resources.cpus)
        self._slots: dict[int, _Slot] = {}
        self._slots_given: dict[int, int] = {}  # how many there were when a task began

    @staticmethod
    def planned_slots(params: ComponentParams, needs: Needs) -> int:
        assert isinstance(params, LocalExecutor.Params)
        _refuse_limits(needs)
        gpus = _gpus(needs)
        if params.slots is not None and params.slots_per_gpu is not None:
            raise ConfigError("--slots and --slots-per-gpu both say how many trials run at once; give one of them")
        sharing = params.slots_per_gpu if needs.resources.gpus is None else _sharing_of(params, needs.resources.gpus)
        if sharing is not None and not gpus:
            missing = "this machine shows none" if needs.on_gpu else "training.device=cpu uses none"
            raise ConfigError(
                f"{_asked_by(params, needs)} needs a GPU, and {missing}; use --slots, whose default is one "
                f"per CPU core ({num_cores()})"
            )
        return params.slots or (gpus * (sharing or 1) if gpus else num_cores() // (needs.resources.cpus or 1)) or 1

    @staticmethod
    def shares_gpus(params: ComponentParams, needs: Needs) -> bool:
        return 0 < _gpus(needs) < LocalExecutor.planned_slots(params, needs)

    @classmethod
    def check_machine(cls, params: ComponentParams, needs: Needs) -> None:
        slots = cls.planned_slots(params, needs)
        if needs.on_gpu:
            refuse_too_many(slots, visible_gpus(), _asked_by(params, needs))

    @property
    def sentences(self) -> Sequence[str]:  # type: ignore[override]
        return self._machine.sentences

    def capacity(self) -> int:
        return self._allowed

    def submit(self, task: Task) -> None:
        number = next(n for n in range(self._allowed) if n not in self._slots or self._slots[n].task is None)
        if number not in self._slots:
            self._slots[number] = self._spawn(number)
        slot = self._slots[number]
        slot.task = task = replace(task, gpu_memory_bytes=self._machine.memory_bytes(number, self._allowed))
        self._slots_given[task.number] = self._allowed
        assert slot.process.stdin is not None
        try:
            slot.process.stdin.write(task.to_json().encode() + b"\n")
            slot.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; `poll` sees the end of its replies

    def adopt(self, task: Task) -> bool:
        return False  # workers end with their parent

    def place(self, number: int) -> str:
        return f"slot {next(slot.number for slot in self._slots.values() if _has(slot, number))}"

    def poll(self, seconds: float) -> list[Reply]:
        with selectors.DefaultSelector() as selector:
            for slot in self._slots.values():
                if slot.task is not None:
                    selector.register(slot.replies, selectors.EVENT_READ, slot)
            ready = [key.data for key, _ in selector.select(seconds)]
        replies = [self._read(slot) for slot in ready]
        self._end_surplus()
        return replies

    def cancel(self, numbers: Collection[int]) -> None:
        for slot in self._slots.values():
            if slot.task is not None and slot.task.number in numbers:
                slot.process.send_signal(signal.SIGTERM)

    def give_more_memory(self, number: int) -> str | None:
        had = self._slots_given[number]
        if self._allowed < had:  # another trial took a slot away meanwhile: this one has more memory now
            return ""
        if self._allowed == 1:
            return None
        self._allowed -= 1
        self._end_surplus()
        return f"that was with {had} slots; continuing with one slot fewer"

    def close(self) -> None:
        for slot in self._slots.values():
            if slot.task is not None:
                slot.process.kill()
        self._end(list(self._slots.values()))
        self._machine.close()

    def _end(self, slots: list[_Slot]) -> None:
        """Let workers go that have nothing to do, or are dead."""
        for slot in slots:
            assert slot.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                slot.process.stdin.close()
        for slot in slots:
            try:
                slot.process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()
            slot.replies.close()
            del self._slots[slot.number]

    def _end_surplus(self) -> None:
        """A worker whose slot has been taken away must not keep its part of the GPU's memory."""
        self._end([slot for slot in self._slots.values() if slot.number >= self._allowed and slot.task is None])

    def _read(self, slot: _Slot) -> Reply:
        """The reply of a slot, or that its worker has died (then it is replaced with the next task)."""
        assert slot.task is not None
        task, slot.task = slot.task, None
        line = slot.replies.readline()
        if line.endswith("\n"):
            return self._explained(Reply.from_json(line), task)
        slot.process.kill()
        code = slot.process.wait()
        slot.replies.close()
        del self._slots[slot.number]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return Reply(task.number, "died", f"its worker {how}; see {self._log(slot.number)}")

    def _explained(self, reply: Reply, task: Task) -> Reply:
        """The reply, which says of a full GPU that it was shared."""
        if reply.outcome != "out_of_memory" or task.gpu_memory_bytes is None:
            return reply
        had = f"it may use {task.gpu_memory_bytes / GIB:.1f} GiB of a GPU that it shares"
        needs = self.around.needs
        change = "lower" if needs.resources.gpus is None else "raise"
        asked = _asked_by(self.params, needs)
        return replace(reply, message=f"{reply.message}; {had}: {change} {asked} to give each trial more")

    def _spawn(self, number: int) -> _Slot:
        reader, writer = os.pipe()
        log = self._log(number)
        command = [sys.executable, "-P", "-m", "jepa_lab.sweeps.worker_loop", str(writer), str(self._machine.threads)]
        with explained_writes(log), open(log, "ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writer, *self._machine.inherited(number)],
                env=self._environment(number),
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which passes it on
            )
        os.close(writer)
        return _Slot(number, process, os.fdopen(reader))

    def _log(self, number: int) -> Path:
        return self.around.logs / f"worker-{number}.log"

    def _environment(self, number: int) -> dict[str, str]:
        return self._machine.environment(number) | {"PYTHONPATH": importable_here()}


def _has(slot: _Slot, number: int) -> bool:
    return slot.task is not None and slot.task.number == number


def _gpus(needs: Needs) -> int:
    return len(visible_gpus()) if needs.on_gpu else 0


def _refuse_limits(needs: Needs) -> None:
    """Raises:
    ConfigError: a resource that nothing on this machine would keep to.
    """
    for option, value in (("--memory", needs.resources.memory), ("--time", needs.resources.time)):
        if value is not None:
            raise ConfigError(
                f"{option} {value}: the local executor sets no limits of its own; leave it out, or use an engine that "
                "does (--executor slurm)"
            )


def _sharing_of(params: LocalExecutor.Params, gpus: float) -> int:
    """How many trials share a GPU where each gets so much of one.

    Raises:
        ConfigError: it is not a whole part of a GPU, or the slots are given as well.
    """
    if params.slots is not None or params.slots_per_gpu is not None:
        raise ConfigError(
            "--gpus says how many trials share a GPU, as --slots and --slots-per-gpu do; give one of them"
        )
    if gpus <= 0 or gpus > 1 or abs(1 / gpus - round(1 / gpus)) > 0.01:
        raise ConfigError(
            f"--gpus {gpus:g}: on this machine a trial gets one GPU or a whole part of it, as in --gpus 0.5 or 0.25; "
            "training.device=cpu leaves the GPUs alone"
        )
    return round(1 / gpus)


def _asked_by(params: ComponentParams, needs: Needs) -> str:
    """The option that says how many slots there are."""
    assert isinstance(params, LocalExecutor.Params)
    if needs.resources.gpus is not None:
        return f"--gpus {needs.resources.gpus:g}"
    return f"--slots {params.slots}" if params.slots is not None else f"--slots-per-gpu {params.slots_per_gpu}"
