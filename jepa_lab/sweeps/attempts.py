"""The files of tasks that workers on other machines perform, in `tasks/` of the sweep's folder.

```
tasks/<task>-<attempt>.task         the task, which a worker reads
tasks/<task>-<attempt>.job          what the engine calls the job that performs it
tasks/<task>-<attempt>.reply.hello  what the worker saw when it began
tasks/<task>-<attempt>.reply        how it ended
tasks/<task>-<attempt>.log          what it printed
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jepa_lab.errors import RunFolderError
from jepa_lab.sweeps.agreement import Hello
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.tracking.atomic import explained_writes, write_text_atomically

_TASK = re.compile(r"(?P<name>.+)-(?P<count>\d+)\.task")


@dataclass(frozen=True)
class Attempt:
    """One attempt at a task.

    Attributes:
        folder: of the files. name: of the task. count: 1 for the first attempt.
    """

    folder: Path
    name: str
    count: int

    @property
    def stem(self) -> str:
        """Name of this attempt, unique in the sweep."""
        return f"{self.name}-{self.count}"

    @property
    def task(self) -> Path:
        """The task."""
        return self.folder / f"{self.stem}.task"

    @property
    def reply(self) -> Path:
        """How it ended."""
        return self.folder / f"{self.stem}.reply"

    @property
    def log(self) -> Path:
        """What the worker printed."""
        return self.folder / f"{self.stem}.log"

    def arguments(self) -> list[str]:
        """Of `python -m jepa_lab.sweeps.worker`."""
        return ["--task", str(self.task), "--reply", str(self.reply)]

    def read_reply(self) -> Reply | None:
        """How it ended; None where it has not.

        Raises:
            RunFolderError: the file is damaged.
        """
        try:
            text = self.reply.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return Reply.from_json(text)
        except (ValueError, TypeError) as error:
            raise RunFolderError(
                f"{self.reply} is damaged ({error}); remove it, and run the same command again"
            ) from error

    def read_hello(self) -> Hello | None:
        """What its worker saw; None before it began."""
        return Hello.read(self.reply)

    def write_job(self, job: str) -> None:
        """Keep what the engine calls it, for people who look for the job."""
        write_text_atomically(self._job, job + "\n")

    def read_job(self) -> str | None:
        """What the engine calls it, for people; None where its parent ended before it knew."""
        try:
            return self._job.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    @property
    def _job(self) -> Path:
        return self.folder / f"{self.stem}.job"


class Attempts:
    """The attempts of a sweep's tasks. Whoever holds the sweep's lock makes them, so the folder is listed once.

    Args:
        folder: of their files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _counts(self) -> dict[str, int]:
        """By the name of a task, the newest attempt at it."""
        counts: dict[str, int] = {}
        for path in self._folder.glob("*.task"):
            found = _TASK.fullmatch(path.name)
            if found is not None:
                counts[found["name"]] = max(int(found["count"]), counts.get(found["name"], 0))
        return counts

    def begin(self, task: Task) -> Attempt:
        """Write a task for its next attempt.

        Raises:
            RunFolderError, RunStopped: it cannot be written.
        """
        with explained_writes(self._folder):
            self._folder.mkdir(exist_ok=True)
        attempt = Attempt(self._folder, task.name, self._counts.get(task.name, 0) + 1)
        write_text_atomically(attempt.task, task.to_json() + "\n")
        self._counts[task.name] = attempt.count
        return attempt

    def last(self, name: str) -> Attempt | None:
        """The newest attempt at a task, of this parent or an earlier one."""
        return Attempt(self._folder, name, self._counts[name]) if name in self._counts else None
