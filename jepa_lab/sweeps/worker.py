"""A worker of the local executor: `python -m jepa_lab.sweeps.worker REPLIES THREADS`.

It reads a task a line (JSON) from its standard input, trains and probes it, and writes a reply a line to the file
descriptor REPLIES. What runs print goes to its standard output, the worker's log. When the standard input ends, the
parent is gone or done: a run that is going on saves its state and stops.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
import traceback
from types import FrameType

import torch

from jepa_lab.composition.outcome import Membership
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import LoadedPipeline, load_pipeline
from jepa_lab.contracts import plugin_failure
from jepa_lab.errors import JepaLabError, RunCrashed, RunInterrupted, RunOutOfMemory, RunPruned
from jepa_lab.output import unfailing_output
from jepa_lab.resume import find_unfinished, resume_run
from jepa_lab.sweeps.executors.base import Outcome, Reply, Task
from jepa_lab.sweeps.references import perform_reference
from jepa_lab.sweeps.sharing.memory import bound_gpu_memory
from jepa_lab.tracking.credentials import scrub
from jepa_lab.training.pretrain import RunCollapsed

_OUTCOMES: tuple[tuple[type[JepaLabError], Outcome], ...] = (
    (RunInterrupted, "interrupted"),
    (RunPruned, "pruned"),
    (RunCollapsed, "collapsed"),
    (RunOutOfMemory, "out_of_memory"),
    (RunCrashed, "failed"),
)


def perform(task: Task) -> Reply:
    """Run a trial, or resume it."""
    try:
        loaded = load_pipeline(task.config)
        if task.encoder is not None:
            return _probed_reference(loaded, task)
        member = Membership(task.tags, task.params, needs_probe=task.needs_probe)
        if loaded.pipeline.training.device != "cpu":  # it would make a CUDA context
            bound_gpu_memory(task.gpu_memory_bytes)
        found = find_unfinished(task.runs, loaded.pipeline)
        if found is None:
            start_run(loaded, task.runs, sys.argv, member)
        else:
            resume_run(found, None, sys.argv, member)
    except JepaLabError as error:
        outcome: Outcome = next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), "failed")
        return Reply(task.number, outcome, scrub(str(error)))
    except Exception as error:  # before the run has a log of its own
        traceback.print_exc()
        failure = plugin_failure(error)
        words = f"{type(error).__name__}: {error}" if failure is None else str(failure)
        return Reply(task.number, "failed", scrub(words))
    return Reply(task.number, "finished", "")


def _probed_reference(loaded: LoadedPipeline, task: Task) -> Reply:
    if loaded.pipeline.training.device != "cpu":
        bound_gpu_memory(task.gpu_memory_bytes)
    assert task.encoder is not None, "asked before"
    perform_reference(loaded, task.encoder, task.runs)
    return Reply(task.number, "finished", "")


class StopBetweenRuns:
    """Keeps a SIGTERM that comes while no run is there to stop: one task is then not begun."""

    def __init__(self) -> None:
        self._received = False

    def listen(self) -> None:
        """Between two runs."""
        signal.signal(signal.SIGTERM, self._handle)

    def release(self) -> bool:
        """Leave signals to a run, if it may begin."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        received, self._received = self._received, False
        return not received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = True


def _read_tasks(tasks: queue.SimpleQueue[Task | None]) -> None:
    """Pass on tasks until the parent closes the pipe or is gone; then end the run that is going on."""
    for line in sys.stdin:
        tasks.put(Task.from_json(line))
    tasks.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Perform tasks until there are no more."""
    replies, threads = os.fdopen(int(sys.argv[1]), "w"), int(sys.argv[2])
    stop = StopBetweenRuns()
    stop.listen()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to pass on
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    threading.Thread(target=_read_tasks, args=(tasks,), daemon=True).start()
    while (task := tasks.get()) is not None:
        reply = Reply(task.number, "interrupted", "")
        if stop.release():
            torch.set_num_threads(threads)  # the trial before may have asked for another number
            reply = perform(task)
        stop.listen()
        gc.collect()
        gc.freeze()  # what outlives a trial is imported code: to look through it after every trial takes 0.25 s
        torch.cuda.empty_cache()
        try:
            replies.write(reply.to_json() + "\n")
            replies.flush()
        except BrokenPipeError:  # the parent is gone; the end of the standard input says so, too
            return


if __name__ == "__main__":
    with unfailing_output():
        main()
