"""Reading ahead in other processes: the same blocks in the same order for any number of workers."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.queues
import multiprocessing.util
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jepa_lab.errors import RunStopped

BLOCKS_AHEAD = 2
"""Blocks that each worker reads ahead: one more than it is working on."""
SECONDS_TO_LEAVE = 2.0
"""How long workers have to end by themselves; those that hang, or were stopped, are killed then."""
_FOR_THE_PARENT = (signal.SIGINT, signal.SIGHUP)
"""What reaches a whole group of processes; the parent is the one that ends the work."""

Result = TypeVar("Result", bound=tuple)


@dataclass(frozen=True)
class Workers:
    """Who reads.

    Attributes:
        count: worker processes; 0 reads in this process.
        pin_memory: whether what was read is put into pinned memory, from which a copy to CUDA does not wait.
    """

    count: int
    pin_memory: bool = False


def default_worker_count() -> int:
    """The cores that this process may use, less one for the training itself; at least 1."""
    # Not os.cpu_count(): containers and batch systems give a process few of a machine's cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def in_order(read: Callable[[Tensor], Result], blocks: Iterable[Tensor], workers: Workers) -> Iterator[Result]:
    """`read(block)` for one block after another, read ahead by the workers; `blocks` may be endless.

    Nothing is drawn from global random generators. The workers end with the iterator, whatever they are doing, and a
    few seconds after this process, should it be killed.

    Args:
        read: returns a named tuple of tensors and plain values; errors that it raises are our own mistakes.
    Raises:
        RunStopped: a worker died, or has no room for what it read.
    """
    if workers.count == 0:
        for block in blocks:
            result = read(block)
            yield _pinned(result) if workers.pin_memory else result
        return
    iterator: Any = None
    try:
        iterator = _or_stopped("cannot be started", lambda: _start(read, blocks, workers), workers)
        while True:
            try:
                result = _or_stopped("died", lambda: next(iterator), workers)
            except StopIteration:
                return
            if isinstance(result, _NoRoom):
                raise _stopped("cannot hand them over", result.reason, workers)
            yield result
    finally:
        if iterator is not None:
            _end(iterator)


def _or_stopped(what: str, work: Callable[[], Any], workers: Workers) -> Any:
    """What `work` returns.

    Args:
        what: the worker did if it fails.

    Raises:
        RunStopped: it failed because a worker could not be started, or is gone.
    """
    try:
        return work()
    except (RuntimeError, OSError, EOFError) as error:
        if not _tells_of_a_dead_worker(error):
            raise
        raise _stopped(what, _first_line(error), workers) from error


def _stopped(what: str, reason: str, workers: Workers) -> RunStopped:
    return RunStopped(
        f"a process that reads images {what} ({reason}); checkpoints that were written are kept. "
        "Most often memory ran out, or shared memory (/dev/shm, which containers keep small): lower "
        f"data.num_workers (now {workers.count}; 0 reads in the training process) or training.batch_size, or "
        "give the container more (docker run --shm-size). Resume a run with "
        "`jepa-lab run --resume RUN_FOLDER data.num_workers=NUMBER`"
    )


@dataclass(frozen=True)
class _NoRoom:
    """What a worker returns in place of a block that does not fit into shared memory."""

    reason: str


class _Blocks(Dataset[Any]):
    """A data set whose items are blocks: the loader's "index" is an array of indices."""

    def __init__(self, read: Callable[[Tensor], tuple]) -> None:
        self.read = read

    def __getitem__(self, indices: np.ndarray) -> tuple | _NoRoom:
        result = self.read(torch.from_numpy(indices))
        try:
            return _shared(result)
        except (RuntimeError, OSError) as error:
            return _NoRoom(_first_line(error))


def _shared(result: Result) -> Result:
    """The result in shared memory, through which it is handed over.

    The loader would put it there in a thread of its own, whose errors nobody hears of: the parent would wait for ever.
    """
    for value in result:
        if isinstance(value, Tensor) and value.numel():
            value.share_memory_()
    return result


def _start(read: Callable[[Tensor], Result], blocks: Iterable[Tensor], workers: Workers) -> Iterator[Any]:
    """Start the workers.

    They are forked on Linux: a spawned one would import torch for seconds. They touch neither the device nor a
    thread pool of their parent: `torch.set_num_threads(1)` is the first thing that the loader does in them.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    _check_sockets()
    context.Event()  # without room for semaphores this fails; the loader would leave a traceback behind
    with warnings.catch_warnings():
        # The user chose the number; and Python >= 3.12 warns of every fork of a process that has threads.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", message=".*use of fork\\(\\) may lead to deadlocks")
        loader = DataLoader(
            _Blocks(read),
            batch_size=None,  # an item is a whole block
            sampler=(block.numpy() for block in blocks),  # tensors would be sent through shared memory
            num_workers=workers.count,
            prefetch_factor=BLOCKS_AHEAD,
            pin_memory=workers.pin_memory,
            collate_fn=_unchanged,
            worker_init_fn=_begin_work,
            multiprocessing_context=context,
            generator=torch.Generator(),  # or the loader would draw a seed from the global one
        )
        handler = signal.getsignal(signal.SIGCHLD)
        with _stop_signals_blocked():
            iterator = iter(loader)
        # PyTorch's handler raises wherever the program happens to be when a worker dies; `next` finds it out too.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if handler is None else handler)
        return iterator


def _check_sockets() -> None:
    """A worker hands over what it read through a socket in the folder for temporary files.

    Raises:
        RunStopped: none can be made there, as where its path is longer than about 70 letters.
    """
    try:
        multiprocessing.connection.Listener().close()
    except OSError as error:
        folder = multiprocessing.util.get_temp_dir()
        raise RunStopped(
            f"processes that read images need a socket in the folder for temporary files, and none can be made in "
            f"{folder} ({error.strerror or error}); set TMPDIR to a folder with a shorter path that can be written, or "
            "data.num_workers=0"
        ) from error


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """A worker is born with its parent's handlers; no signal may come to them before it has changed them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_FOR_THE_PARENT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(iterator: Any) -> None:
    """End the workers: politely at first, and by force where that does not help.

    A worker that hangs in a file system, or was stopped (SIGSTOP), answers nothing but SIGKILL. The loader would wait
    for it, as would the interpreter when it exits.
    """
    force = threading.Timer(SECONDS_TO_LEAVE, _kill, (iterator._workers,))
    force.daemon = True
    force.start()
    iterator._shutdown_workers()  # the loader has no public way; it would do so when the iterator is collected
    force.cancel()  # not in a `finally`: an impatient second Ctrl-C must not spare those that hang


def _kill(workers: Iterable[Any]) -> None:
    for worker in workers:
        worker.kill()  # nothing for one that has ended


def _unchanged(result: Result) -> Result:
    return result


def _begin_work(worker: int) -> None:
    """The first thing that a worker does."""
    _take_no_signals()
    # A subclass's hook by the standard library's design, but the loader makes the queue itself.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_leave)  # type: ignore[attr-defined]


def _leave(error: Exception, unsent: object) -> None:
    """End a worker that cannot send what it read: its parent would wait for it for ever, and notices a death."""
    print(f"a process that reads images cannot send them: {_first_line(error)}", file=sys.stderr, flush=True)
    os._exit(1)


def _take_no_signals() -> None:
    """Leave to the parent what reaches the whole process group.

    SIGTERM needs nothing: the loader gave it the default action back, whatever the parent's handler is.
    """
    for number in _FOR_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_FOR_THE_PARENT, signal.SIGTERM))


def _pinned(result: Result) -> Result:
    return type(result)(*(value.pin_memory() if isinstance(value, Tensor) else value for value in result))


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Whether an error of the loader means that a worker is gone or out of reach, not that `read` raised in one."""
    text = str(error)
    if (
        re.match(r"DataLoader worker \(pid|Pin memory thread|Too many open files", text)
        or "in pin memory thread" in text
    ):
        return True
    # The connection over which a tensor's memory is handed over broke.
    return isinstance(error, (OSError, EOFError)) and not text.startswith("Caught ")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
