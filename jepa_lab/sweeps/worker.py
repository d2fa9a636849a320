"""Performs a task: `python -m jepa_lab.sweeps.worker --task TASK.json --reply REPLY.json`.

The command may be given again and again, by whatever engine starts it: a trial that has finished is answered
"finished", one that was begun is resumed, and one that another process is at work on is answered "busy". The reply is
written whole, beside what the worker saw when it began (`REPLY.json.hello`). What the run prints goes to the standard
output. With `--end-with-stdin` the worker saves its state and ends, without a reply, when its standard input closes.
Exit codes: 0 with a reply, whatever it says; 66 where the task cannot be read, as on a machine that does not see the
folder of the sweep.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jepa_lab.composition.outcome import Membership
from jepa_lab.composition.start import start_run
from jepa_lab.composition.stopping import stoppable
from jepa_lab.config.loading import LoadedPipeline, load_pipeline
from jepa_lab.contracts import plugin_failure
from jepa_lab.errors import JepaLabError, RunCrashed, RunInterrupted, RunOutOfMemory, RunPruned
from jepa_lab.interruption import StopSignals
from jepa_lab.output import unfailing_output
from jepa_lab.resume import find_finished, find_unfinished, resume_run
from jepa_lab.sweeps.agreement import no_working_folder, refusal, say_hello
from jepa_lab.sweeps.lifeline import Lifeline
from jepa_lab.sweeps.references import perform_reference, reference_is_probed
from jepa_lab.sweeps.sharing.memory import bound_gpu_memory
from jepa_lab.sweeps.stop_between_runs import StopBetweenRuns
from jepa_lab.sweeps.tasks import NO_TASK, Outcome, Reply, Task
from jepa_lab.tracking.atomic import write_text_atomically
from jepa_lab.tracking.credentials import scrub
from jepa_lab.tracking.locks import FileLock, LockHeld
from jepa_lab.training.pretrain import RunCollapsed

_OUTCOMES: tuple[tuple[type[JepaLabError], Outcome], ...] = (
    (RunInterrupted, "interrupted"),
    (RunPruned, "pruned"),
    (RunCollapsed, "collapsed"),
    (RunOutOfMemory, "out_of_memory"),
    (RunCrashed, "failed"),
    (LockHeld, "busy"),
)
_CLAIM_SECONDS = 10.0
"""How long a worker waits for another one that is leaving the same trial; the parent waits for longer."""


def perform(task: Task) -> Reply:
    """Run a trial, resume it, or say that it has finished already."""
    try:
        if task.expected is not None:
            difference = refusal(task.expected)
            if difference is not None:
                return Reply(task.number, "refused", difference)
        if task.folder is not None:
            if not task.folder.is_dir():
                return Reply(task.number, "refused", no_working_folder(task.folder))
            os.chdir(task.folder)
        loaded = load_pipeline(task.config)
        with _claimed(task):
            if task.encoder is None:
                _trained(loaded, task)
            else:
                _probed_reference(loaded, task.encoder, task)
    except JepaLabError as error:
        outcome: Outcome = next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), "failed")
        return Reply(task.number, outcome, scrub(str(error)))
    except Exception as error:  # before the run has a log of its own
        traceback.print_exc()
        failure = plugin_failure(error)
        words = f"{type(error).__name__}: {error}" if failure is None else str(failure)
        return Reply(task.number, "failed", scrub(words))
    return Reply(task.number, "finished", "")


def _trained(loaded: LoadedPipeline, task: Task) -> None:
    if find_finished(task.runs, loaded.pipeline) is not None:
        return
    member = Membership(task.tags, task.params, lock_seconds=_CLAIM_SECONDS, needs_probe=task.needs_probe)
    if loaded.pipeline.training.device != "cpu":  # it would make a CUDA context
        bound_gpu_memory(task.gpu_memory_bytes)
    found = find_unfinished(task.runs, loaded.pipeline)
    if found is None:
        start_run(loaded, task.runs, sys.argv, member)
    else:
        resume_run(found, None, sys.argv, member)


def _probed_reference(loaded: LoadedPipeline, encoder: str, task: Task) -> None:
    if reference_is_probed(loaded, task.runs):
        return
    if loaded.pipeline.training.device != "cpu":
        bound_gpu_memory(task.gpu_memory_bytes)
    perform_reference(loaded, encoder, task.runs)


@contextmanager
def _claimed(task: Task) -> Iterator[None]:
    """Be the only process that looks for the trial's run folder and makes one if there is none.

    Raises:
        LockHeld: another one is at work on the trial. RunInterrupted: a signal came first.
    """
    with FileLock(task.claim, f"the trial {task.name}") as claim:
        with stoppable(StopSignals()):
            claim.acquire(_CLAIM_SECONDS)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Perform one task; the exit code."""
    parser = ArgumentParser(prog="python -m jepa_lab.sweeps.worker", description="Perform one trial of a sweep.")
    parser.add_argument("--task", type=Path, required=True, help="file with the task")
    parser.add_argument("--reply", type=Path, required=True, help="file for the reply")
    parser.add_argument("--end-with-stdin", action="store_true", help="save the state and end when it closes")
    options = parser.parse_args(arguments)
    stop, lifeline = StopBetweenRuns(), Lifeline()
    stop.listen()
    if options.end_with_stdin:
        lifeline.hold()
    try:
        task = Task.from_json(options.task.read_text(encoding="utf-8"))
    except OSError as error:
        print(f"the task {options.task} cannot be read: {error.strerror}", file=sys.stderr, flush=True)
        return NO_TASK
    try:
        options.reply.unlink(missing_ok=True)  # of an earlier start, which the engine has repeated
        if task.expected is not None:
            say_hello(task.expected).write(options.reply)
        reply = perform(task) if stop.release() else Reply(task.number, "interrupted", "")
        stop.listen()
        if lifeline.is_cut and reply.outcome == "interrupted":
            return 128 + signal.SIGTERM
        write_text_atomically(options.reply, reply.to_json() + "\n")
    except JepaLabError as error:  # a full disk: the parent learns of it by the missing reply
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    with unfailing_output():
        code = main()
    sys.exit(code)
