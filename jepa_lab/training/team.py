"""Who computes a batch together: one process, or several that torchrun has started."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from jepa_lab.errors import ConfigError
from jepa_lab.interruption import StopSignals
from jepa_lab.training.devices import Compute

Value = TypeVar("Value")


@dataclass(frozen=True)
class Place:
    """Which process of a run this one is.

    Attributes:
        rank: its number, from 0. world_size: how many there are.
        local_rank: its number on this machine, which is that of its GPU. local_size: how many there are here.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def on_several_machines(self) -> bool:
        """Whether some of the processes are not on this machine."""
        return self.local_size < self.world_size

    @property
    def is_first_of_another_machine(self) -> bool:
        """Whether this process speaks where the output of process 0 cannot be seen."""
        return self.local_rank == 0 and self.rank != 0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place:
        """What torchrun says; without torchrun, the only process.

        Raises:
            ConfigError: the variables are there and are not numbers that fit.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if not all(name in environment for name in names):
            return cls()
        said = ", ".join(f"{name}={environment[name]}" for name in names)
        try:
            place = cls(*(int(environment[name]) for name in names))
        except ValueError:
            place = cls(rank=-1)
        if not (0 <= place.rank < place.world_size and 0 <= place.local_rank < place.local_size):
            raise ConfigError(
                f"the environment says {said}, which torchrun would not; start the run by torchrun, or unset RANK"
            )
        return place


def refuse_torchrun(command: str) -> None:
    """For commands that are one process, or that start their own.

    Raises:
        ConfigError: torchrun has started several.
    """
    size = Place.of(os.environ).world_size
    if size > 1:
        raise ConfigError(
            f"`jepa-lab {command}` is not for torchrun, which has started it {size} times: only `jepa-lab run` trains "
            "one model in several processes; start this command without torchrun"
        )


class Team(ABC):
    """The processes that train one model, as one of them sees them.

    Attributes:
        place: which of them this one is.
        stop: the signals that ask this process to stop, which the others hear of.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stop = StopSignals()

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.place.world_size

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, measures and speaks."""
        return self.place.rank == 0

    def rows(self, batch_size: int) -> slice:
        """This process's rows of a batch that all of them share; `batch_size` is a multiple of their number."""
        count = batch_size // self.size
        return slice(self.place.rank * count, (self.place.rank + 1) * count)

    def describe(self, compute: Compute) -> str:
        """What the run computes on, in words."""
        here = compute.describe()
        return here if self.size == 1 else f"{self.size} processes, each on {here}"

    @abstractmethod
    def on_device(self, compute: Compute) -> Compute:
        """The device that this process computes on.

        Raises:
            DeviceError: the processes cannot each have one.
        """

    @abstractmethod
    def replicate(self, model: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
        """The model, compiled or not, with gradients summed over all processes; all of them call this."""

    @abstractmethod
    def without_sum(self) -> AbstractContextManager[object]:
        """Within, the replicated model's gradients stay here, to be summed with those of a later part of the batch."""

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes of a scalar on the device; the host does not wait."""

    @abstractmethod
    def computing(self) -> AbstractContextManager[object]:
        """Around what sums over processes.

        Raises:
            RunStopped: another process has died.
        """

    @abstractmethod
    def reporting(self) -> AbstractContextManager[object]:
        """Around what each process does by itself: an error of one becomes the end of all, with its exit code.

        The leader raises the error, and so prints it; the others end silently. Never around sums, in which the
        others could be waiting.
        """

    @abstractmethod
    def meet(self) -> signal.Signals | None:
        """Wait for the others, and end with them if one has failed.

        Returns:
            A signal that any of them has received: the same on all of them.
        """

    @abstractmethod
    def agree(self, facts: Mapping[str, str], remedy: str) -> None:
        """End all unless every process knows the same of these facts; all of them call this.

        Args:
            facts: by what they are about, such as `jepa-lab`.
            remedy: what to do where they differ.
        Raises:
            ConfigError: in the leader, naming the process, its machine and the difference; the others end silently.
        """

    @abstractmethod
    def from_leader(self, work: Callable[[], Value]) -> Value:
        """What `work` returns in the leader, which alone calls it, once all have come here; an error ends all."""


class Alone(Team):
    """A run of one process."""

    def __init__(self) -> None:
        super().__init__(Place())

    def on_device(self, compute: Compute) -> Compute:
        return compute

    def replicate(self, model: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
        return model

    def without_sum(self) -> AbstractContextManager[object]:
        return nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        return value

    def computing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def reporting(self) -> AbstractContextManager[object]:
        return nullcontext()

    def meet(self) -> signal.Signals | None:
        return self.stop.received

    def agree(self, facts: Mapping[str, str], remedy: str) -> None:
        """There is nobody to differ from."""

    def from_leader(self, work: Callable[[], Value]) -> Value:
        return work()
