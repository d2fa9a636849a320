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
from pathlib import Path

from jepa_lab.errors import RunFolderError
from jepa_lab.sweeps.agreement import Hello
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.tracking.atomic import explained_writes, write_text_atomically


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
        """Keep what the engine calls it, for a parent that is started again."""
        write_text_atomically(self._job, job + "\n")

    def read_job(self) -> str | None:
        """What the engine calls it; None where its parent ended before it knew."""
        try:
            return self._job.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    @property
    def _job(self) -> Path:
        return self.folder / f"{self.stem}.job"


def begin_attempt(folder: Path, task: Task) -> Attempt:
    """Write a task for its next attempt.

    Raises:
        RunFolderError, RunStopped: it cannot be written.
    """
    with explained_writes(folder):
        folder.mkdir(exist_ok=True)
    last = last_attempt(folder, task.name)
    attempt = Attempt(folder, task.name, 1 if last is None else last.count + 1)
    write_text_atomically(attempt.task, task.to_json() + "\n")
    return attempt


def last_attempt(folder: Path, name: str) -> Attempt | None:
    """The newest attempt at a task, of this parent or an earlier one."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+)\.task")
    counts = [int(found[1]) for path in folder.glob(f"{name}-*.task") if (found := pattern.fullmatch(path.name))]
    return Attempt(folder, name, max(counts)) if counts else None
