"""What an executor is: it performs trials somewhere, several at once; their run folders tell how they are doing."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jepa_lab.registry import Component, ComponentParams, Registry

Outcome = Literal["finished", "failed", "pruned", "collapsed", "interrupted", "out_of_memory", "died"]


@dataclass(frozen=True)
class Task:
    """A trial for a worker.

    Attributes:
        number: of the trial in the study.
        config: YAML of the resolved pipeline.
        runs: run root; an unfinished run of this pipeline there is gone on with.
        tags, params: what the tracker is told beside the run's own.
        needs_probe: whether the sweep is decided by a probe, which images without labels do not have.
        encoder: source of an encoder that is probed in place of a run; `runs` is then the folder of the result.
        gpu_memory_bytes: that its tensors may take on the GPU, which it shares; None is all there is.
    """

    number: int
    config: Path
    runs: Path
    tags: Mapping[str, str]
    params: Mapping[str, str]
    needs_probe: bool = False
    encoder: str | None = None
    gpu_memory_bytes: int | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps({**asdict(self), "config": str(self.config), "runs": str(self.runs)})

    @classmethod
    def from_json(cls, line: str) -> Task:
        """The task that `to_json` wrote."""
        content = json.loads(line)
        return cls(**{**content, "config": Path(content["config"]), "runs": Path(content["runs"])})


@dataclass(frozen=True)
class Reply:
    """How a task ended.

    Attributes:
        outcome: "collapsed" where the run was to end with its features' collapse, and did; "died" where the worker
            itself was killed or crashed.
        message: why, in words; empty for a trial that finished.
    """

    number: int
    outcome: Outcome
    message: str

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Reply:
        """The reply that `to_json` wrote."""
        return cls(**json.loads(line))


class Executor(Component[None], ABC):
    """Performs tasks.

    Args:
        params: the executor's own `Params`.
        logs: folder for the workers' logs.
        on_gpu: whether the tasks may use a GPU.

    Attributes:
        sentences: how tasks share what they run on, in words.
    """

    sentences: Sequence[str] = ()

    def __init__(self, params: ComponentParams, logs: Path, on_gpu: bool) -> None:
        self.params, self.logs, self.on_gpu = params, logs, on_gpu

    @staticmethod
    @abstractmethod
    def planned_slots(params: ComponentParams, on_gpu: bool) -> int:
        """How many tasks would run at once, without starting anything.

        Raises:
            ConfigError: the parameters contradict each other or the machine.
        """

    @staticmethod
    @abstractmethod
    def shares_gpus(params: ComponentParams, on_gpu: bool) -> bool:
        """Whether tasks that run at once would slow each other down on a GPU."""

    @classmethod
    @abstractmethod
    def check_machine(cls, params: ComponentParams, on_gpu: bool) -> None:
        """Refuse what cannot run here, before anything is written.

        Raises:
            ConfigError: naming the option and what would.
        """

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """How many tasks run at once."""

    @abstractmethod
    def num_idle(self) -> int:
        """How many more tasks can be started now."""

    @abstractmethod
    def start(self, task: Task) -> int:
        """Begin a task; the number of its slot."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Reply]:
        """The replies that have come; at most `seconds` are waited for the first."""

    @abstractmethod
    def reduce_slots(self) -> bool:
        """Run one task less at once from now on; False if there is one slot only."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all runs to save their state and to stop; their replies say "interrupted"."""

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do; what they have saved stays."""


EXECUTORS: Registry[Executor] = Registry("executor", Executor)
