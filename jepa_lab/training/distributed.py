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
import inspect
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jepa_lab.contracts import plugin_failure
from jepa_lab.errors import ConfigError, DeviceError, JepaLabError, RunCrashed, RunStopped
from jepa_lab.interruption import StopRequested
from jepa_lab.tracking.environment import code_versions
from jepa_lab.training.connections import noticing_lost_machines, set_timeout
from jepa_lab.training.devices import Compute
from jepa_lab.training.meeting import CONNECTED, Address, Wait, connect_processes
from jepa_lab.training.team import Alone, Place, Team, Value

logger = logging.getLogger(__name__)

_WAIT_FOR_LEADER = timedelta(days=7)
"""An evaluation may take hours. A process that died is noticed at once, by its closed connection, and a machine that
vanished in minutes; see `connections`."""

_WAIT_FOR_GRADIENTS = timedelta(minutes=30)
"""Compiling takes minutes, and not as many on every machine. NCCL notices nothing earlier where a machine vanishes."""

_BUFFERS_STAY: dict[str, Any] = {
    # The model's buffers are constants. The first name is that of PyTorch 2.15 and later, which warns of the second.
    next(
        name
        for name in ("forward_sync_buffers", "broadcast_buffers")
        if name in inspect.signature(DistributedDataParallel.__init__).parameters
    ): False
}


@dataclass(frozen=True)
class _Report:
    """What a process has to say to the others.

    Attributes:
        error: why it cannot go on. received: a signal that asks it to stop. value: pickled, of the leader's work, or
            of what all of them tell each other.
    """

    error: JepaLabError | StopRequested | None = None
    received: signal.Signals | None = None
    value: bytes | None = None


_NOTHING = _Report()


class AgreedEnd(SystemExit):
    """Ends a follower: the leader tells the user why.

    Args:
        error: the one that the leader tells.
    """

    def __init__(self, error: JepaLabError | StopRequested) -> None:
        super().__init__(128 + error.signal if isinstance(error, StopRequested) else error.exit_code)
        self.error = error


class Processes(Team):
    """The processes that torchrun has started; see `joined_team`."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._gradients: dist.ProcessGroup | None = None
        self._replicated: DistributedDataParallel | None = None
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
        return replace(compute, device=own, capture=False)  # collectives of the host lie between the kernels

    def replicate(self, model: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
        if self._gradients is None:
            backend = "nccl" if device.type == "cuda" else "gloo"
            with noticing_lost_machines():
                group = dist.new_group(backend=backend, timeout=CONNECTED)
            assert isinstance(group, dist.ProcessGroup), "this process is in it"
            set_timeout(_WAIT_FOR_GRADIENTS, group)
            self._gradients = group
        assert isinstance(model, nn.Module), "a compiled model is one, too"
        # Not `static_graph`: it does not go together with `no_sync`.
        self._replicated = DistributedDataParallel(
            model, process_group=self._gradients, gradient_as_bucket_view=True, **_BUFFERS_STAY
        )
        # A lambda, because PyTorch compares annotations, which are strings in this file.
        hook = lambda group, bucket: _sum_of_bucket(group, bucket)  # noqa: E731, PLW0108
        self._replicated.register_comm_hook(self._gradients, hook)
        return self._replicated

    def without_sum(self) -> AbstractContextManager[object]:
        assert self._replicated is not None, "made by `replicate`"
        return self._replicated.no_sync()

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
    def reporting(self) -> Iterator[None]:
        try:
            yield
        except (Exception, StopRequested) as error:  # whatever it is, the others must not wait for this process
            if not self._ended:
                with self.stop.held():
                    reports = self._exchange(_Report(error=self._shareable(error)))
                self._end(reports, error)
            raise

    def meet(self) -> signal.Signals | None:
        with self.stop.held():
            reports = self._exchange(_NOTHING if self.stop.received is None else _Report(received=self.stop.received))
        self._end(reports)
        return next((report.received for report in reports if report.received is not None), None)

    def agree(self, facts: Mapping[str, str], remedy: str) -> None:
        own = _Report(value=pickle.dumps((self._who(), dict(facts))))
        with self.stop.held():
            reports = self._exchange(own)
        self._end(reports)
        difference = first_difference([pickle.loads(report.value or b"") for report in reports])
        if difference is None:
            return
        self._ended = True
        error = ConfigError(f"{difference}; {remedy}")
        raise error if self.leads else AgreedEnd(error)

    def from_leader(self, work: Callable[[], Value]) -> Value:
        self.meet()
        report = _NOTHING
        if self.leads:
            with self.reporting():
                value = work()
                report = _Report(value=pickle.dumps(value))
        with self.stop.held():
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
            raise own  # also the traceback of a bug in jepa-lab, wherever it happened
        if self.leads:
            raise errors[0]
        raise AgreedEnd(errors[0]) from own

    def _shareable(self, error: BaseException) -> JepaLabError | StopRequested:
        if isinstance(error, StopRequested):
            return error
        failure = plugin_failure(error) if isinstance(error, Exception) else None
        told = error if isinstance(error, JepaLabError) else failure
        if told is None:
            return RunCrashed(
                f"{self._who()} of {self.size} crashed: {type(error).__name__}: {error}. This is a bug in jepa-lab; "
                "please report it with its traceback"
            )
        if not self.leads:  # the leader tells it, for which this was not so
            told.place = self._who() if told.place is None else f"{self._who()}: {told.place}"
        return told

    def _who(self) -> str:
        """This process, in words."""
        place = self.place
        return f"process {place.rank}" + (f" (on {socket.gethostname()})" if place.on_several_machines else "")

    def _lost(self, error: RuntimeError) -> RunStopped:
        self._ended = True
        logger.warning("a collective failed: %s", error)
        return RunStopped(
            f"another of the {self.size} processes of this run has died, which its own output explains, or its machine "
            "no longer answers. Checkpoints that were written are kept: start the same torchrun command again on every "
            "machine, with --resume auto"
        )

    def leave(self) -> None:
        """After an end that all have agreed on: followers stay until the leader's process is gone.

        torchrun sends SIGTERM to the others as soon as one ends with an error, and the leader may still be writing.
        """
        if not self.leads:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        if self._gradients is not None:
            dist.destroy_process_group(self._gradients)
        if not self.leads:
            try:
                dist.recv(torch.zeros(1), src=0)  # nothing will come: the connection closes
            except RuntimeError as error:
                if not _tells_of_a_lost_process(error):
                    raise


@contextmanager
def joined_team() -> Iterator[Team]:
    """The processes that torchrun has started, connected; without torchrun, this one alone.

    Followers print nothing within: their standard output is closed. Of an error, one process a machine tells.

    Raises:
        ConfigError: the environment is not torchrun's, or the others run other code. RunStopped: they did not come.
    """
    place = Place.of(os.environ)
    if place.world_size == 1:
        yield Alone()
        return
    connect_processes(place, Address.of(os.environ, place), Wait.of(os.environ), _WAIT_FOR_LEADER)
    atexit.register(dist.destroy_process_group)  # not earlier: followers watch the leader's connection
    team = Processes(place)
    with ExitStack() as stack:
        if not team.leads:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
        try:
            team.agree(code_versions(), "install the same versions on every machine")
            yield team
        except AgreedEnd as end:
            if place.is_first_of_another_machine:
                print(f"the run has ended on all machines: {end.error}", file=sys.stderr, flush=True)
            team.leave()
            raise
        team.leave()


def first_difference(told: Sequence[tuple[str, Mapping[str, str]]]) -> str | None:
    """The first process that does not know what the first one knows, in words, with up to three of the differences.

    Args:
        told: by rank, who it is, and what it knows.
    """
    leader, expected = told[0]
    for who, facts in told[1:]:
        differing = [name for name in {**expected, **facts} if expected.get(name) != facts.get(name)]
        differing.sort(key=lambda name: name not in facts or name not in expected)  # what follows from others, last
        if differing:
            named = [f"{name} {facts.get(name, 'none')} instead of {expected.get(name, 'none')}" for name in differing]
            more = f", and {len(named) - 3} more" if len(named) > 3 else ""
            return f"{who} differs from {leader}: {', '.join(named[:3])}{more}"
    return None


def _sum_of_bucket(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """The sum over processes, where DistributedDataParallel would average: losses divide by global counts already."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _tells_of_a_lost_process(error: RuntimeError) -> bool:
    """Whether an error of a collective means that another process is gone."""
    return isinstance(error, dist.DistError) or any(words in str(error) for words in ("gloo/transport", "Gloo connect"))
