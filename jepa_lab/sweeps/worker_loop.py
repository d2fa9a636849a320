"""A worker of the local executor: `python -m jepa_lab.sweeps.worker_loop REPLIES THREADS`.

It reads a task a line (JSON) from its standard input, performs it, and writes a reply a line to the file descriptor
REPLIES. What runs print goes to its standard output, the worker's log. When the standard input ends, the parent is
gone or done: a run that is going on saves its state and stops.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading

import torch

from jepa_lab.output import unfailing_output
from jepa_lab.sweeps.stop_between_runs import StopBetweenRuns
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.sweeps.worker import perform


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
