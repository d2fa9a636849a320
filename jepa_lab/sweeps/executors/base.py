"""What an executor is: it performs trials somewhere, several at once; their run folders tell how they are doing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_lab.registry import Component, ComponentParams, Registry
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.resources import Needs
from jepa_lab.sweeps.tasks import Reply, Task


@dataclass(frozen=True)
class Surroundings:
    """Where an executor does its work.

    Attributes:
        folder: of the sweep, which every worker sees.
        logs: folder for what workers of this machine print.
        needs: what each trial is to get.
    """

    folder: SweepFolder
    logs: Path
    needs: Needs


class Executor(Component[None], ABC):
    """Performs tasks. All of its methods are called by one thread, the parent of the sweep.

    Whatever an engine promises about its jobs, a task is over when its reply has come: the parent alone counts
    attempts and submits a task again.

    Args:
        params: the executor's own `Params`.
        around: where it does its work.

    Attributes:
        sentences: how trials share what they run on, in words.
        keeps_workers: whether a worker performs many tasks in the same place, so that only its first one waits for
            the start of a process.
        is_remote: whether workers may run on other machines than the parent.
        look_seconds: how often the parent looks at what its tasks write; a network disk is asked less often.
    """

    sentences: Sequence[str] = ()
    keeps_workers = False
    is_remote = True
    look_seconds = 0.5

    def __init__(self, params: ComponentParams, around: Surroundings) -> None:
        self.params, self.around = params, around

    @staticmethod
    @abstractmethod
    def planned_slots(params: ComponentParams, needs: Needs) -> int:
        """How many tasks would run at once at most, without starting anything.

        Raises:
            ConfigError: the parameters or the resources contradict each other or the engine.
        """

    @staticmethod
    @abstractmethod
    def shares_gpus(params: ComponentParams, needs: Needs) -> bool:
        """Whether tasks that run at once would slow each other down on a GPU."""

    @classmethod
    @abstractmethod
    def check_machine(cls, params: ComponentParams, needs: Needs) -> None:
        """Refuse what cannot run here, before anything is written.

        Raises:
            ConfigError: naming the option and what would.
        """

    @abstractmethod
    def capacity(self) -> int:
        """How many tasks may be with it at once now; it may change, and be less than there are."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Begin a task.

        Raises:
            RunStopped: the engine cannot be reached, and was not for a while.
        """

    @abstractmethod
    def adopt(self, task: Task) -> bool:
        """Take over a task that an earlier parent of the sweep submitted; False if no worker has it any more."""

    @abstractmethod
    def place(self, number: int) -> str:
        """Where a task runs or waits, for the display: a slot, a machine, the number of a job."""

    @abstractmethod
    def poll(self, seconds: float) -> list[Reply]:
        """The replies that have come; at most about `seconds` are waited for the first."""

    @abstractmethod
    def cancel(self, numbers: Collection[int]) -> None:
        """Ask tasks to save their state and to stop; their replies say "interrupted". One that waits is not begun."""

    def news(self) -> Sequence[str]:
        """What the user should know since the last call, a sentence each."""
        return ()

    @abstractmethod
    def give_more_memory(self, number: int) -> str | None:
        """A task ran out of memory: let it have more when it is submitted again.

        Returns:
            What was changed, in words, perhaps nothing (it has more already); None where there is no more.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do; what they have saved stays."""


EXECUTORS: Registry[Executor] = Registry("executor", Executor)
