"""Slurm's own commands: what they are asked, and what their answers mean.

No accounting is needed: `sbatch`, `squeue`, `scancel` and `scontrol` ask the controller alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
"""States of a job that will not start again."""

STILL_SUBMITTING = "the sbatch of an earlier command is still at work"

_COMMAND_SECONDS = 120.0
_PASSING = re.compile(
    r"unable to contact|timed out|connection refused|connect failure|transport endpoint|zero bytes|"
    r"temporarily unable|try again|authentication|credential|communication|munge",
    re.IGNORECASE,
)
_FULL = re.compile(r"MaxSubmit|submit limit|too many (pending )?jobs", re.IGNORECASE)
_DOWN = re.compile(r"node configuration is not available|inactive or drain", re.IGNORECASE)
_PREFIX = re.compile(r"^(?:sbatch|squeue|scancel|scontrol): (?:error: )?|^allocation failure: |^slurm_\w+ error: ")


class SlurmUnreachable(Exception):
    """The controller did not answer, in Slurm's own words; it may later."""


class SlurmRefused(Exception):
    """The controller refused a job, in Slurm's own words.

    Attributes:
        is_full: whether it has as many jobs of the user as it accepts, so that it may take this one later.
        is_unsure: whether nodes that are down for a while would be reason enough for `--test-only` to say so.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.is_full = _FULL.search(words) is not None
        self.is_unsure = _DOWN.search(words) is not None


@dataclass(frozen=True)
class Job:
    """A job in the queue.

    Attributes:
        number: as `sbatch` told it. name: that it was given.
        state: such as RUNNING. node: where it runs; empty where it waits. reason: why it waits, or how it ended.
    """

    number: str
    state: str
    node: str
    reason: str
    name: str

    @property
    def has_ended(self) -> bool:
        """Whether it will not start again."""
        return self.state in ENDED

    @property
    def is_ending(self) -> bool:
        """Whether its processes have been told to stop, be it for good or until it starts again."""
        return self.state == "COMPLETING"

    def place(self) -> str:
        """Where it runs, or why it waits."""
        if self.state == "RUNNING":
            return f"job {self.number} on {self.node}"
        return f"job {self.number} {self.state}" + (f" ({self.reason})" if self.reason not in ("", "None") else "")


def submit(options: Sequence[str], script: str, lock: Path) -> str:
    """The number of a job that has been submitted.

    Args:
        lock: file that `sbatch` holds (flock) until it has ended, even if this process is killed before.
    Raises:
        SlurmRefused, SlurmUnreachable: it was not, or perhaps it was.
    """
    with open(lock, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # to wait here would hear no Ctrl-C
        except BlockingIOError:
            raise SlurmUnreachable(STILL_SUBMITTING) from None
        printed = _ask(["sbatch", "--parsable", *options], script, inherited=[file.fileno()])
    return printed.strip().partition(";")[0]


def try_submit(options: Sequence[str], script: str) -> None:
    """Let Slurm look at a job without taking it.

    Raises:
        SlurmRefused, SlurmUnreachable: it would not take it, or could not start it with the nodes of the moment.
    """
    _ask(["sbatch", "--test-only", *options], script)


def list_jobs() -> list[Job]:
    """The jobs of this user, and those that ended a while ago.

    Raises:
        SlurmUnreachable: it does not answer.
    """
    lines = _ask(["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%N|%r|%j"]).splitlines()
    return [Job(*line.split("|", 4)) for line in lines]


def end_jobs(jobs: Collection[str]) -> None:
    """Cancel those that wait, ask those that run to stop, and let none of them start again.

    Raises:
        SlurmUnreachable: it does not answer.
    """
    # In this order: one that is preempted from now on ends, and one that begins meanwhile is asked to stop.
    commands = [["scontrol", "update", f"JobId={','.join(jobs)}", "Requeue=0"]]
    commands += [["scancel", "--quiet", *how, *jobs] for how in (["--state=PENDING"], ["--signal=TERM", "--full"])]
    for command in commands:
        with contextlib.suppress(SlurmRefused):  # one has ended meanwhile
            _ask(command)
    between = [job.number for job in list_jobs() if job.number in jobs and job.is_ending]
    if between:  # preempted just before, they would be requeued: a plain scancel leaves them to end and prevents that
        with contextlib.suppress(SlurmRefused):
            _ask(["scancel", "--quiet", *between])


def describe_job(job: str) -> Mapping[str, str]:
    """What Slurm knows of a job, such as JobState, ExitCode and NodeList; empty where it has forgotten it."""
    try:
        words = _ask(["scontrol", "--oneliner", "show", "job", job]).split()
    except (SlurmRefused, SlurmUnreachable):
        return {}
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _ask(command: Sequence[str], script: str | None = None, inherited: Sequence[int] = ()) -> str:
    """What a command prints.

    Args:
        script: its standard input. inherited: open files that it gets.
    Raises:
        SlurmRefused, SlurmUnreachable: it failed.
    """
    try:
        done = subprocess.run(
            command,
            input=script,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            pass_fds=inherited,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SlurmUnreachable(f"{command[0]} did not answer within {_COMMAND_SECONDS:.0f} s") from None
    if done.returncode == 0:
        return done.stdout
    words = "; ".join(filter(None, (_PREFIX.sub("", line).strip() for line in done.stderr.splitlines())))
    words = words or f"{command[0]} ended with code {done.returncode}"
    is_answer = done.returncode > 0 and command[0] != "squeue" and not _PASSING.search(words)
    raise SlurmRefused(words) if is_answer else SlurmUnreachable(words)
