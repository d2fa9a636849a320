"""What executors with workers on other machines share: tasks and replies are files in the sweep's folder.

An engine starts `python -m jepa_lab.sweeps.worker` for each task, says which of its jobs are alive, and ends them. That
a job is over is told by its reply; one that the engine no longer has, and that left no reply within a while, has died.
"""

from __future__ import annotations

import os
import sys
import time
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from jepa_lab.errors import RunStopped
from jepa_lab.registry import ComponentParams
from jepa_lab.sweeps.agreement import broken_locks, expected_here
from jepa_lab.sweeps.attempts import Attempt, Attempts
from jepa_lab.sweeps.executors.base import Executor, Surroundings
from jepa_lab.sweeps.tasks import Reply, Task

_PACKAGE_ROOT = Path(__file__).resolve().parents[3]
_LOOK_SECONDS = 2.0
_ASK_SECONDS = 0.25


@dataclass
class Flight:
    """An attempt that is not over.

    Attributes:
        task: that is performed. job: what the engine calls it; None where the engine has not taken it yet.
        is_own: whether this parent submitted it, which has held the sweep's lock ever since.
        was_greeted: whether its worker's hello has been read. was_cancelled: whether it was asked to stop.
        gone_since: time.monotonic() since when the engine does not have it; None while it does.
    """

    task: Task
    attempt: Attempt
    job: str | None = None
    is_own: bool = False
    was_greeted: bool = False
    was_cancelled: bool = False
    gone_since: float | None = None

    @property
    def number(self) -> int:
        """Of its task."""
        return self.task.number


class RemoteParams(ComponentParams):
    """Parameters of executors whose engines answer late, and cost something to ask."""

    grace_seconds: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="How long to wait for the reply of a job that the engine no longer has: network file systems show "
        "new files late.",
    )
    poll_seconds: float = Field(
        5.0,
        gt=0,
        le=600,
        description="How often the engine is asked which jobs are alive; replies are looked for every two seconds, or "
        "this often if that is more often.",
    )


class RemoteExecutor(Executor):
    """Tasks as files, jobs by an engine.

    Attributes:
        restarts_jobs: whether the engine itself may start a job again that was interrupted.
        grace_seconds: how long to wait for the reply of a job that the engine no longer has.
        poll_seconds: how often the engine is asked. look_seconds: how often the files of a job that it has are read.
    """

    restarts_jobs = False
    grace_seconds = 0.0
    poll_seconds, look_seconds = _ASK_SECONDS, _LOOK_SECONDS

    def __init__(self, params: ComponentParams, around: Surroundings) -> None:
        super().__init__(params, around)
        self._folder = around.folder.path.absolute() / "tasks"
        self._attempts = Attempts(self._folder)
        self._expected = expected_here(around.folder)
        self._flights: dict[int, Flight] = {}
        self._places: Mapping[str, str] = {}
        self._asked = self._looked = -float("inf")  # time.monotonic()
        self._has_answered = False

    @abstractmethod
    def launch(self, attempt: Attempt, task: Task) -> str | None:
        """Let the engine perform an attempt.

        Returns:
            What it calls the job; None where it cannot take it now, or may have taken it without saying so: it is
            looked for and asked again when the engine has answered.
        """

    @abstractmethod
    def alive(self) -> Mapping[str, str] | None:
        """The jobs of this sweep that wait or run, each with its place for the display; None if it does not answer.

        Raises:
            RunStopped: it has not answered for so long that the sweep ends.
        """

    @abstractmethod
    def find(self, attempt: Attempt) -> str | None:
        """The job of an attempt whose number is not known, if the engine had it at its last answer."""

    @abstractmethod
    def end(self, jobs: Collection[str]) -> None:
        """Ask jobs to save their state and to stop; those that wait are not begun."""

    @abstractmethod
    def autopsy(self, flight: Flight) -> Reply:
        """How a job ended that left no reply: usually "died", with what the engine knows of it."""

    def submit(self, task: Task) -> None:
        task = replace(task, expected=self._expected)
        flight = self._flights[task.number] = Flight(task, self._attempts.begin(task))
        self._launch(flight)

    def adopt(self, task: Task) -> bool:
        attempt = self._attempts.last(task.name)
        if attempt is None or not self._may_go_on(attempt):
            return False
        if not self._has_answered:
            self._ask()
        job = self.find(attempt) if self._has_answered else None
        if job is None and self._has_answered:
            return False
        self._flights[task.number] = Flight(replace(task, expected=self._expected), attempt, job)
        return True

    def place(self, number: int) -> str:
        job = self._flights[number].job
        return f"task {number}" if job is None else self._places.get(job, f"job {job}")

    def poll(self, seconds: float) -> list[Reply]:
        deadline = time.monotonic() + seconds
        while True:
            if self._flights and time.monotonic() - self._asked >= self.poll_seconds:
                self._ask()
            replies = [reply for flight in self._due_flights() if (reply := self._look(flight)) is not None]
            if replies or time.monotonic() >= deadline:
                return replies
            time.sleep(min(self.poll_seconds, self.look_seconds, max(0.0, deadline - time.monotonic())))

    def cancel(self, numbers: Collection[int]) -> None:
        flights = [self._flights[number] for number in numbers if number in self._flights]
        for flight in flights:
            flight.was_cancelled = True
        self._end(flights)

    def close(self) -> None:
        self.cancel([number for number, flight in self._flights.items() if not flight.was_cancelled])
        self._flights.clear()

    def _launch(self, flight: Flight) -> None:
        try:
            flight.job = self.launch(flight.attempt, flight.task)
        except RunStopped:
            self._flights.clear()  # what the engine has is left to the next parent, as the message says
            raise
        if flight.job is not None:
            flight.is_own = True
            flight.attempt.write_job(flight.job)
            self._asked = -float("inf")  # the answer at hand is older than the job

    def _end(self, flights: Collection[Flight]) -> None:
        jobs = [flight.job for flight in flights if flight.job is not None]
        if jobs:
            self.end(jobs)
            self._asked = -float("inf")

    def _ask(self) -> None:
        """Which jobs the engine has.

        Raises:
            RunStopped: it has not answered for long. Its jobs are left to the next parent, which adopts them.
        """
        self._asked = time.monotonic()
        try:
            places = self.alive()
        except RunStopped:
            self._flights.clear()
            raise
        if places is None:  # whatever runs runs on
            return
        self._places, self._has_answered = places, True
        for flight in self._flights.values():
            if flight.job is None:
                self._find_or_launch(flight)
            elif flight.job in places:
                flight.gone_since = None
            elif flight.gone_since is None:
                flight.gone_since = self._asked

    def _find_or_launch(self, flight: Flight) -> None:
        """Look after a job that the engine had not taken, as far as was known."""
        flight.job = self.find(flight.attempt)
        if flight.job is None and flight.was_cancelled:
            flight.gone_since = self._asked
        elif flight.job is None:
            self._launch(flight)
        elif flight.was_cancelled:
            self._end([flight])

    def _may_go_on(self, attempt: Attempt) -> bool:
        """Whether a job of this attempt may still be at work; a reply that is the last may have been counted."""
        reply = attempt.read_reply()
        return reply is None or (self.restarts_jobs and reply.outcome == "interrupted")

    def _due_flights(self) -> list[Flight]:
        """Those whose files are read now: of jobs that the engine no longer has at once, of others now and then."""
        if time.monotonic() - self._looked >= self.look_seconds:
            self._looked = time.monotonic()
            return list(self._flights.values())
        return [flight for flight in self._flights.values() if flight.gone_since is not None]

    def _look(self, flight: Flight) -> Reply | None:
        """The reply of a task, if it is over."""
        reply = self._replied(flight) or self._refused(flight) or self._gone(flight)
        if reply is None:
            return None
        del self._flights[flight.number]
        return replace(reply, number=flight.number)

    def _replied(self, flight: Flight) -> Reply | None:
        """What the worker said, unless the engine will start it again."""
        reply = flight.attempt.read_reply()
        if reply is None or reply.outcome != "interrupted" or not self.restarts_jobs:
            return reply
        is_over = flight.was_cancelled or flight.gone_since is not None
        return reply if is_over else None

    def _refused(self, flight: Flight) -> Reply | None:
        """The end of a task whose worker cannot see that the sweep is locked."""
        if flight.was_greeted:
            return None
        hello = flight.attempt.read_hello()
        if hello is None:
            return None
        flight.was_greeted = True
        if hello.sees_lock or not flight.is_own:  # while there was no parent, nobody held it
            return None
        self._end([flight])
        return Reply(flight.number, "refused", broken_locks(hello, self.around.folder))

    def _gone(self, flight: Flight) -> Reply | None:
        """The end of a task that the engine no longer has, once its reply would have been seen."""
        if flight.gone_since is None:
            return None
        waited = time.monotonic() - flight.gone_since
        if flight.was_cancelled:  # before it began, or killed for being slow to stop
            return Reply(flight.number, "interrupted", "")
        return self.autopsy(flight) if waited >= self.grace_seconds else None


def importable_here() -> str:
    """PYTHONPATH of a worker: the package that the parent runs comes first."""
    paths = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(path for path in paths if path)


def worker_command(attempt: Attempt) -> list[str]:
    """What an engine starts for an attempt."""
    return [sys.executable, "-P", "-m", "jepa_lab.sweeps.worker", *attempt.arguments()]
