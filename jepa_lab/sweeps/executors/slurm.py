"""Slurm: a batch job for each attempt at a trial."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.sweeps import slurm_commands
from jepa_lab.sweeps.attempts import Attempt
from jepa_lab.sweeps.executors.base import EXECUTORS, Surroundings
from jepa_lab.sweeps.executors.remote import Flight, RemoteExecutor, RemoteParams, importable_here, worker_command
from jepa_lab.sweeps.resources import Needs
from jepa_lab.sweeps.slurm_commands import Job, SlurmRefused, SlurmUnreachable
from jepa_lab.sweeps.tasks import NO_TASK, Reply, Task
from jepa_lab.tracking.locks import FileLock

_EARLY_SECONDS = 60
"""By which Slurm may send a signal earlier than it was asked to."""
_NO_OUTPUT = 53
"""What Slurm gives as the signal of a job whose output file could not be opened."""
_MEMORY_FACTOR, _MOST_MEMORY = 2, 4
"""What a trial that ran out of memory gets, and the most, in multiples of what it had and of what was asked for."""
_OURS = ("--job-name", "--output", "--error", "--array", "--wrap", "--wait", "--clusters", "--test-only", "--signal")
_OURS_SHORT = ("-J", "-o", "-e", "-a", "-W", "-M")
_FAULTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"partition", ("partition",)),
    (r"account\b", ("account",)),
    (r"\bqos\b(?!.* policy)", ("qos",)),
    (r"feature", ("constraint",)),
    (r"node name", ("nodelist", "exclude")),
    (r"generic resource|\bgres\b|\bgpu", ("gpus", "gpu_type")),
    (r"time limit|--time", ("time",)),
    (r"memory", ("memory",)),
    (r"unrecognized option|invalid option|ambiguous|reservation|license|dependency", ("options",)),
    (r"node configuration", ("cpus", "gpus", "gpu_type", "memory", "constraint", "nodelist", "exclude", "partition")),
)
"""What Slurm says, and which settings it is about."""
_RESOURCES = ("cpus", "gpus", "memory", "time")


Text = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


class _Patience:
    """Ends the sweep when Slurm has not answered for long."""

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._since: float | None = None

    def answered(self) -> None:
        """It did."""
        self._since = None

    def wait(self, words: str) -> None:
        """It did not.

        Raises:
            RunStopped: for the last time.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= 60 * self._minutes:
            raise RunStopped(
                f"Slurm has not answered for {self._minutes:g} min ({words}); its jobs continue by themselves: when it "
                "answers again, run the same command again to resume, which takes over what still runs"
            )


@EXECUTORS.register("slurm", summary="a batch job of a Slurm cluster for each trial", source="slurm.schedmd.com")
class SlurmExecutor(RemoteExecutor):
    """One `sbatch` for each attempt, one `squeue` for all of them now and then; no accounting is needed.

    A job that Slurm itself starts again (it was preempted, or its node was lost) keeps its number, and so does the
    attempt: the worker resumes the run, and a reply "interrupted" counts only when the job is gone.
    """

    class Params(RemoteParams):
        partition: Text | None = Field(None, description="Partition; null: Slurm's default one.")
        account: Text | None = Field(None, description="Account that the jobs are charged to.")
        qos: Text | None = Field(None, description="Quality of service.")
        constraint: Text | None = Field(None, description="Features that the nodes must have, such as a100&nvlink.")
        nodelist: Text | None = Field(None, description="Nodes to use, such as node[1-4].")
        exclude: Text | None = Field(None, description="Nodes not to use.")
        gpu_type: Text | None = Field(None, description="Kind of the GPUs, such as a100, as Slurm's GRES calls it.")
        max_jobs: int = Field(
            16, ge=1, le=10_000, strict=True, description="Trials that Slurm has at once, waiting or running."
        )
        warning_seconds: int = Field(
            120,
            ge=5,
            le=3600,
            strict=True,
            description="How long before its time limit a job is told to save its state and stop.",
        )
        unreachable_minutes: float = Field(
            10.0, gt=0, le=1440, description="How long to wait for a Slurm that does not answer."
        )
        setup: tuple[Text, ...] = Field(
            (), description="Lines of bash that each job runs first, such as `module load cuda`."
        )
        options: tuple[Text, ...] = Field((), description="More options of sbatch, such as --reservation=course.")

        @field_validator("options")
        @classmethod
        def _check_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
            for option in options:
                if not option.startswith("-"):
                    raise broken_rule(f"each is an option of sbatch, such as --reservation=course, got {option!r}")
                if option.partition("=")[0] in _OURS or option[:2] in _OURS_SHORT:
                    raise broken_rule(f"{option.partition('=')[0]} is jepa-lab's own to set, got {option!r}")
            return options

    params: Params
    restarts_jobs = True

    def __init__(self, params: ComponentParams, around: Surroundings) -> None:
        super().__init__(params, around)
        self.grace_seconds, self.poll_seconds = self.params.grace_seconds, self.params.poll_seconds
        self.look_seconds = min(self.look_seconds, self.poll_seconds)
        self._prefix = f"jepa-lab-{hashlib.sha256(str(around.folder.path.resolve()).encode()).hexdigest()[:12]}-"
        self._jobs: dict[str, Job] = {}  # of this sweep, by their names, at Slurm's last answer
        self._to_end: set[str] = set()  # jobs that Slurm could not be told to end yet
        self._memory: dict[int, int] = {}  # MiB of tasks that needed more than was asked for
        self._short_of_memory: set[int] = set()  # tasks whose last job Slurm ended for its memory
        self._held: dict[int, str] = {}  # why a task is not submitted yet
        self._submitting = FileLock(self._folder / "sbatch.lock", "the submission of a job")
        self._patience = _Patience(self.params.unreachable_minutes)
        self._submission = _Patience(self.params.unreachable_minutes)  # `squeue` may answer while `sbatch` fails
        self._not_before = -float("inf")  # time.monotonic() of the next `sbatch`, after one that failed

    @staticmethod
    def planned_slots(params: ComponentParams, needs: Needs) -> int:
        assert isinstance(params, SlurmExecutor.Params)
        _refuse_resources(params, needs)
        return params.max_jobs

    @staticmethod
    def shares_gpus(params: ComponentParams, needs: Needs) -> bool:
        return False

    @classmethod
    def check_machine(cls, params: ComponentParams, needs: Needs) -> None:
        assert isinstance(params, SlurmExecutor.Params)
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "--executor slurm: there is no sbatch on this machine; run the command on a login node of the "
                "cluster, or use --executor local"
            )
        try:
            slurm_commands.try_submit(_options(params, needs), "#!/bin/sh\n")
        except SlurmRefused as refused:
            if not (refused.is_full or refused.is_unsure):  # else it is told when it is asked to take a job
                raise _explained(refused, params, needs) from None
        except SlurmUnreachable:
            return  # it may answer by the time that there is something to submit

    @property
    def sentences(self) -> Sequence[str]:  # type: ignore[override]
        needs = self.around.needs
        if needs.on_gpu and needs.resources.gpus is None:
            return ["no --gpus: each trial gets what Slurm gives a job that asks for none, which may be a CPU alone"]
        if (needs.resources.gpus or 0) > 1:
            return [f"--gpus {needs.resources.gpus:g}: a trial trains on one of its GPUs; the others stay idle"]
        return []

    def capacity(self) -> int:
        return self.params.max_jobs

    def place(self, number: int) -> str:
        return self._held.get(number, f"task {number}") if self._flights[number].job is None else super().place(number)

    def launch(self, attempt: Attempt, task: Task) -> str | None:
        if time.monotonic() < self._not_before:
            self._held[task.number] = f"task {task.number} waits for Slurm, which does not answer"
            return None
        self._held.pop(task.number, None)
        try:
            options = self._job_options(attempt, task.number)
            job = slurm_commands.submit(options, self._script(attempt), self._submitting.path)
        except SlurmUnreachable as error:
            self._submission.wait(str(error))
            self._not_before = time.monotonic() + self.poll_seconds
            self._held[task.number] = f"task {task.number} waits for Slurm, which does not answer ({error})"
            return None
        except SlurmRefused as refused:
            if refused.is_full and any(flight.job is not None for flight in self._flights.values()):
                self._held[task.number] = f"task {task.number} waits: Slurm takes no more jobs now ({refused})"
                return None
            raise _explained(refused, self.params, self.around.needs) from None
        self._submission.answered()
        return job

    def alive(self) -> Mapping[str, str] | None:
        if self._submitting.is_held():  # an earlier parent was killed
            self._patience.wait(slurm_commands.STILL_SUBMITTING)
            return None
        try:
            jobs = slurm_commands.list_jobs()
            if self._to_end:
                slurm_commands.end_jobs(self._to_end)
                self._to_end.clear()
        except SlurmUnreachable as error:
            self._patience.wait(str(error))
            return None
        self._patience.answered()
        own = [job for job in jobs if job.name.startswith(self._prefix)]
        own.sort(key=lambda job: not job.has_ended)  # of two with the same name the one that has not
        self._jobs = {job.name: job for job in own}
        return {job.number: job.place() for job in self._jobs.values() if not job.has_ended}

    def find(self, attempt: Attempt) -> str | None:
        job = self._jobs.get(self._name(attempt))
        return None if job is None or job.has_ended else job.number

    def end(self, jobs: Collection[str]) -> None:
        try:
            slurm_commands.end_jobs(jobs)
        except SlurmUnreachable:
            self._to_end.update(jobs)

    def autopsy(self, flight: Flight) -> Reply:
        assert flight.job is not None, "only a job that Slurm had can be gone"
        end = _End(flight, slurm_commands.describe_job(flight.job), self._jobs.get(self._name(flight.attempt)))
        if end.state == "OUT_OF_MEMORY":
            self._short_of_memory.add(flight.number)
        return end.reply()

    def give_more_memory(self, number: int) -> str | None:
        asked = self.around.needs.resources.memory_mib
        if asked is None or number not in self._short_of_memory:  # it was the GPU's
            return None
        self._short_of_memory.discard(number)
        had = self._memory.get(number, asked)
        more = had * _MEMORY_FACTOR
        if more > asked * _MOST_MEMORY:
            return None
        try:
            slurm_commands.try_submit(_options(self.params, self.around.needs, more), "#!/bin/sh\n")
        except SlurmRefused:  # no node has so much
            return None
        except SlurmUnreachable:
            pass  # its next job shows it
        self._memory[number] = more
        return f"its next job gets --memory {_size(more)} instead of {_size(had)}"

    def _name(self, attempt: Attempt) -> str:
        """Of its job: an attempt has one, whoever asks, now or after a restart of the parent."""
        return self._prefix + attempt.stem

    def _job_options(self, attempt: Attempt, number: int) -> list[str]:
        own = [f"--job-name={self._name(attempt)}", f"--output={_pattern(attempt.log)}", "--open-mode=append"]
        return [*own, *_options(self.params, self.around.needs, self._memory.get(number))]

    def _script(self, attempt: Attempt) -> str:
        """What Slurm runs: the worker takes the place of the shell, and so gets its signals."""
        cpus, gpus = self.around.needs.resources.cpus, self.around.needs.resources.gpus
        lines = [
            "#!/bin/bash -l" if self.params.setup else "#!/bin/sh",
            *self.params.setup,
            f"export PYTHONPATH={shlex.quote(importable_here())}",
            f"export OMP_NUM_THREADS={'${SLURM_CPUS_ON_NODE:-1}' if cpus is None else cpus}",
            *(["export CUDA_VISIBLE_DEVICES="] if gpus == 0 else []),
            f"exec {shlex.join(worker_command(attempt))}",
        ]
        return "\n".join(lines) + "\n"


class _End:
    """How a job ended that left no reply.

    Args:
        known: what `scontrol` says. listed: what `squeue` said, where it is that long ago.
    """

    def __init__(self, flight: Flight, known: Mapping[str, str], listed: Job | None) -> None:
        self.flight = flight
        self.state = known.get("JobState") or ("" if listed is None else listed.state)
        self.node = known.get("NodeList", "") if listed is None else listed.node
        code, _, number = known.get("ExitCode", "0:0").partition(":")
        self.code, self.signal = int(code), int(number or 0)

    def reply(self) -> Reply:
        """What that means for its task."""
        if self.code == NO_TASK:
            return self._reply("refused", f"{self._where()} does not see {self.flight.attempt.task}; {_SHARE}")
        if self.code in (126, 127):
            python = worker_command(self.flight.attempt)[0]
            return self._reply(
                "refused",
                f"{self._where()} cannot start {python} (code {self.code}); install jepa-lab where all nodes see it, "
                f"under the same path{self._log()}",
            )
        if self.signal == _NO_OUTPUT:
            return self._reply(
                "refused",
                f"Slurm could not write the log of job {self.flight.job} on {self._where()}, as on a node that does "
                f"not see {self.flight.attempt.folder}; {_SHARE}",
            )
        if self.state == "OUT_OF_MEMORY":
            return self._reply("out_of_memory", f"Slurm ended its job {self.flight.job} for its memory{self._log()}")
        if self.state in ("PREEMPTED", "TIMEOUT"):  # it had no time to reply
            return self._reply("interrupted", f"its job {self.flight.job} ended as {self.state}{self._log()}")
        return self._reply("died", f"its job {self.flight.job} {self._how()}{self._log()}")

    def _how(self) -> str:
        if not self.state:
            return "is gone, and Slurm no longer knows how it ended"
        if self.state == "CANCELLED":
            return "was cancelled"
        if self.signal:
            return f"was killed by signal {self.signal} on {self._where()}"
        return f"ended on {self._where()} as {self.state}" + (f" with code {self.code}" if self.code else "")

    def _where(self) -> str:
        return self.node or "its node"

    def _log(self) -> str:
        return f"; see {self.flight.attempt.log}"

    def _reply(self, outcome: str, message: str) -> Reply:
        return Reply(self.flight.number, outcome, message)  # type: ignore[arg-type]


_SHARE = "put the sweep on a file system that all nodes share, under the same path (--sweeps)"


def _refuse_resources(params: SlurmExecutor.Params, needs: Needs) -> None:
    """Raises:
    ConfigError: what Slurm, or a trial, has no use for.
    """
    gpus, limit = needs.resources.gpus, needs.resources.duration
    if gpus is not None and gpus != int(gpus):
        raise ConfigError(
            f"--gpus {gpus:g}: Slurm gives whole GPUs; use --gpus 1, or share GPUs on one machine or with Ray "
            "(--executor local, --executor ray)"
        )
    if gpus and not needs.on_gpu:
        raise ConfigError(f"--gpus {gpus:g} needs a GPU, and training.device=cpu uses none; leave one of them out")
    if params.gpu_type is not None and not gpus:
        raise ConfigError(f"--executor-option gpu_type={params.gpu_type} needs --gpus 1")
    least = timedelta(seconds=params.warning_seconds + _EARLY_SECONDS)
    if limit is not None and limit < least + timedelta(seconds=30):
        raise ConfigError(
            f"--time {needs.resources.time} leaves no time to train: a job is told to stop {params.warning_seconds} s "
            f"before its limit (--executor-option warning_seconds), and Slurm may be {_EARLY_SECONDS} s early; raise "
            "--time"
        )


def _options(params: SlurmExecutor.Params, needs: Needs, memory: int | None = None) -> list[str]:
    """Those of all jobs.

    Args:
        memory: in MiB, where it is more than was asked for.
    """
    resources = needs.resources
    memory = resources.memory_mib if memory is None else memory
    kind = "" if params.gpu_type is None else f"{params.gpu_type}:"
    given = {
        "cpus-per-task": resources.cpus,
        "gres": f"gpu:{kind}{int(resources.gpus)}" if resources.gpus else None,
        "mem": None if memory is None else f"{memory}M",
        "time": None if resources.duration is None else _clock(resources.duration),
        **_by_name(params),
    }
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return ["--requeue", f"--signal=B:TERM@{params.warning_seconds}", *options, *params.options]


def _by_name(params: SlurmExecutor.Params) -> dict[str, str | None]:
    """The parameters that are options of sbatch by the same names."""
    return {
        "partition": params.partition,
        "account": params.account,
        "qos": params.qos,
        "constraint": params.constraint,
        "nodelist": params.nodelist,
        "exclude": params.exclude,
    }


def _explained(refused: SlurmRefused, params: SlurmExecutor.Params, needs: Needs) -> ConfigError:
    """Slurm's words, and the options that they are about."""
    words = str(refused)
    blamed = next((names for pattern, names in _FAULTS if re.search(pattern, words, re.IGNORECASE)), None)
    given = _given(params, needs)
    named = [text for name, text in given.items() if blamed is None or name in blamed] or list(given.values())
    asked = f"; this comes from {' '.join(named)}" if named else ""
    return ConfigError(f"Slurm refuses the jobs of this sweep: {words}{asked}; `sinfo` lists what there is")


def _given(params: SlurmExecutor.Params, needs: Needs) -> dict[str, str]:
    """How the settings that reach Slurm were written."""
    resources = {name: getattr(needs.resources, name) for name in _RESOURCES}
    own = {**_by_name(params), "gpu_type": params.gpu_type, "options": params.options}
    given = {name: f"--{name} {_written(value)}" for name, value in resources.items() if value is not None}
    return given | {name: f"--executor-option {name}={_written(value)}" for name, value in own.items() if value}


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return shlex.quote(f"[{', '.join(value)}]")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clock(limit: timedelta) -> str:
    """As sbatch reads it; Slurm counts in minutes."""
    minutes = math.ceil(limit.total_seconds() / 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02d}:{minutes % 60:02d}:00"


def _size(mebibytes: int) -> str:
    return f"{mebibytes / 1024:g}G" if mebibytes % 512 == 0 else f"{mebibytes}M"


def _pattern(path: Path) -> str:
    """A path in which sbatch replaces nothing."""
    return str(path).replace("%", "%%")
