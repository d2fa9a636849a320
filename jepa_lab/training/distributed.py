"""One large run over several processes: who they are, what they add up, and how they end together.

`torchrun --nproc-per-node N -m jepa_lab run FILE` starts N processes with the same command. Each holds the whole
model and computes its rows of every batch; the gradients are summed by DistributedDataParallel. The first one, the
leader, alone writes the run folder; the others follow.

Two process groups keep two things apart. Gradients have a group of the device's own kind (NCCL on CUDA). What the
hosts tell each other (a signal, an error, the result of an evaluation) goes through gloo, once a step; the device
does not wait for it. All of that is one and the same collective, `_exchange`: so a process that failed finds the
others wherever they are, and none waits for something that will never come.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jepa_lab.errors import ConfigError, DeviceError, JepaLabError, RunCrashed, RunStopped
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.training.devices import Compute

_WAIT_FOR_LEADER = timedelta(days=7)
"""An evaluation may take hours; a process that died is noticed at once, by its closed connection."""

_WAIT_FOR_GRADIENTS = timedelta(hours=1)
"""Compiling takes minutes, and not as many on every machine."""

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
    """

    def __init__(self, place: Place) -> None:
        self.place = place

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

    @abstractmethod
    def on_device(self, compute: Compute) -> Compute:
        """The device that this process computes on.

        Raises:
            DeviceError: the processes cannot each have one.
        """

    @abstractmethod
    def replicate(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with gradients summed over all processes; they all call it, in the same step."""

    @abstractmethod
    def without_sum(self, model: nn.Module) -> AbstractContextManager[object]:
        """Within, a replicated model's gradients stay here, to be summed with those of a later part of the batch."""

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
    def reporting(self, stop: StopSignals) -> AbstractContextManager[object]:
        """Around what each process does by itself: an error of one becomes the end of all, with its exit code.

        The leader raises the error, and so prints it; the others end silently. Never around sums, in which the
        others could be waiting.
        """

    @abstractmethod
    def meet(self, stop: StopSignals) -> signal.Signals | None:
        """Wait for the others, and end with them if one has failed.

        Returns:
            A signal that any of them has received: the same on all of them.
        """

    @abstractmethod
    def from_leader(self, work: Callable[[], Value], stop: StopSignals) -> Value:
        """What `work` returns in the leader, which alone calls it; an error there ends all."""


class Alone(Team):
    """A run of one process."""

    def __init__(self) -> None:
        super().__init__(Place())

    def on_device(self, compute: Compute) -> Compute:
        return compute

    def replicate(self, model: nn.Module, device: torch.device) -> nn.Module:
        return model

    def without_sum(self, model: nn.Module) -> AbstractContextManager[object]:
        return nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        return value

    def computing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def reporting(self, stop: StopSignals) -> AbstractContextManager[object]:
        return nullcontext()

    def meet(self, stop: StopSignals) -> signal.Signals | None:
        return stop.received

    def from_leader(self, work: Callable[[], Value], stop: StopSignals) -> Value:
        return work()


ALONE = Alone()


@dataclass(frozen=True)
class _Report:
    """What a process has to say to the others.

    Attributes:
        error: why it cannot go on. received: a signal that asks it to stop. value: pickled, of the leader's work.
    """

    error: JepaLabError | StopRequested | None = None
    received: signal.Signals | None = None
    value: bytes | None = None


_NOTHING = _Report()


class AgreedEnd(SystemExit):
    """Ends a follower silently: the leader tells the user why."""


class Processes(Team):
    """The processes that torchrun has started; see `joined_team`."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._gradients: dist.ProcessGroup | None = None
        self._ended = False

    def on_device(self, compute: Compute) -> Compute:
        device, local = compute.device, self.place.local_rank
        if device.type == "mps":
            raise DeviceError(
                f"torchrun has started {self.size} processes, and a Mac has one GPU, which they cannot share; "
                "start the run without torchrun, or use training.device=cpu"
            )
        if device.type != "cuda":
            return compute
        if device.index is not None:
            raise DeviceError(
                f"training.device={str(device)!r} names one GPU, and torchrun has started {self.size} processes that "
                "need one each; use training.device=cuda"
            )
        here = torch.cuda.device_count()
        if self.place.local_size > here:
            raise DeviceError(
                f"torchrun has started {self.place.local_size} processes on this machine, which has {here} GPU(s), "
                f"one for each process; use --nproc-per-node {here}"
            )
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
        return replace(compute, device=own)

    def replicate(self, model: nn.Module, device: torch.device) -> nn.Module:
        if self._gradients is None:
            backend = "nccl" if device.type == "cuda" else "gloo"
            self._gradients = dist.new_group(backend=backend, timeout=_WAIT_FOR_GRADIENTS)
        # Not `static_graph`: it does not go together with `no_sync`.
        replicated = DistributedDataParallel(
            model, process_group=self._gradients, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        replicated.register_comm_hook(self._gradients, _sum_of_bucket)
        return replicated

    def without_sum(self, model: nn.Module) -> AbstractContextManager[object]:
        assert isinstance(model, DistributedDataParallel), "made by `replicate`"
        return model.no_sync()

    def sum(self, value: Tensor) -> Tensor:
        assert self._gradients is not None, "made by `replicate`"
        total = value.clone()
        dist.all_reduce(total, group=self._gradients)
        return total

    @contextmanager
    def computing(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo has no type of its own
            if not _tells_of_a_lost_process(error):
                raise
            raise self._lost(error) from error

    @contextmanager
    def reporting(self, stop: StopSignals) -> Iterator[None]:
        try:
            yield
        except (Exception, StopRequested) as error:  # whatever it is, the others must not wait for this process
            if not self._ended:
                with stop.held():
                    reports = self._exchange(_Report(error=self._shareable(error)))
                self._end(reports, error)
            raise

    def meet(self, stop: StopSignals) -> signal.Signals | None:
        with stop.held():
            reports = self._exchange(_NOTHING if stop.received is None else _Report(received=stop.received))
        self._end(reports)
        return next((report.received for report in reports if report.received is not None), None)

    def from_leader(self, work: Callable[[], Value], stop: StopSignals) -> Value:
        report = _NOTHING
        if self.leads:
            with self.reporting(stop):
                value = work()
                report = _Report(value=pickle.dumps(value))
        with stop.held():
            reports = self._exchange(report)
        self._end(reports)
        pickled = reports[0].value
        assert pickled is not None, "all processes do the same"
        return value if self.leads else pickle.loads(pickled)

    def _exchange(self, report: _Report) -> list[_Report]:
        """What every process has to say, by rank; empty where none has anything."""
        assert not self._ended, "the others have left"
        try:
            news = torch.tensor(int(report is not _NOTHING))
            dist.all_reduce(news, op=dist.ReduceOp.MAX)
            if not news:
                return []
            reports: list[Any] = [None] * self.size
            dist.all_gather_object(reports, report)
            return reports
        except RuntimeError as error:
            if not _tells_of_a_lost_process(error):
                raise
            raise self._lost(error) from error

    def _end(self, reports: list[_Report], own: BaseException | None = None) -> None:
        """End this process if one has failed: the leader with an error, the others silently.

        Args:
            own: what this process has failed with.
        """
        errors = [report.error for report in reports if report.error is not None]
        if not errors:
            return
        self._ended = True
        if own is not None and (self.leads or not isinstance(own, (JepaLabError, StopRequested))):
            raise own  # also the traceback of a mistake of ours, wherever it happened
        if self.leads:
            raise errors[0]
        raise AgreedEnd(_exit_code(errors[0])) from own

    def _shareable(self, error: BaseException) -> JepaLabError | StopRequested:
        if isinstance(error, (JepaLabError, StopRequested)):
            return error
        return RunCrashed(
            f"process {self.place.rank} of {self.size} crashed: {type(error).__name__}: {error}. This is a mistake of "
            "ours; please report it with its traceback"
        )

    def _lost(self, error: RuntimeError) -> RunStopped:
        self._ended = True
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return RunStopped(
            f"another process of this run has died ({first}); what it said stands above or in its machine's log. "
            "Checkpoints that were written are kept: go on with the same torchrun command and --resume RUN_FOLDER"
        )

    def leave(self) -> None:
        """After an end that all have agreed on: followers stay until the leader's process is gone.

        torchrun sends SIGTERM to the others as soon as one ends with an error, and the leader may still be writing.
        """
        if self._gradients is not None:
            dist.destroy_process_group(self._gradients)
        if not self.leads:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            try:
                dist.recv(torch.zeros(1), src=0)  # nothing will come: the connection closes
            except RuntimeError as error:
                if not _tells_of_a_lost_process(error):
                    raise


@contextmanager
def joined_team() -> Iterator[Team]:
    """The processes that torchrun has started, connected; without torchrun, this one alone.

    Followers print nothing within: their standard output is closed.
    """
    place = Place.of(os.environ)
    if place.world_size == 1:
        yield ALONE
        return
    dist.init_process_group("gloo", timeout=_WAIT_FOR_LEADER)
    atexit.register(dist.destroy_process_group)  # not earlier: followers watch the leader's connection
    team = Processes(place)
    with ExitStack() as stack:
        if not team.leads:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
        try:
            yield team
        except AgreedEnd:
            team.leave()
            raise
        team.leave()


def _sum_of_bucket(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """The sum over processes, where DistributedDataParallel would average: losses divide by global counts already."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _exit_code(error: JepaLabError | StopRequested) -> int:
    return 128 + error.signal if isinstance(error, StopRequested) else error.exit_code


def _tells_of_a_lost_process(error: RuntimeError) -> bool:
    """Whether an error of a collective means that another process is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "onnection" in str(error)
