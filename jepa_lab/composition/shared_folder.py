"""Whether all processes of a run see the folder that their leader writes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jepa_lab.tracking.atomic import explained_writes
from jepa_lab.training.team import Team

_SHOWN_AFTER_SECONDS = 60.0
"""A network file system may show a new file so late to other machines (NFS: acdirmax)."""

_LOOK_EVERY_SECONDS = 0.2


def check_shared_folder(folder: Path, team: Team) -> None:
    """Refuse a process for which the path of a folder leads to another one.

    The leader leaves a new, empty folder in it, under a name that no other folder has, and the others look for that.

    Raises:
        ConfigError: naming the process, its machine and both paths. RunFolderError: the folder cannot be written.
    """
    if team.size == 1:
        return
    with _mark(folder, team) as (name, path):
        seen = path if team.leads or _is_shown(folder / name) else f"{folder.absolute()} (not the same folder)"
        team.agree(
            {"folder of runs": seen},
            "start torchrun in the same folder on every machine, or name one that all of them see, by --runs",
        )


@contextmanager
def _mark(folder: Path, team: Team) -> Iterator[tuple[str, str]]:
    """The name of what the leader leaves in the folder until the end of the block, and the folder's path there."""

    def leave() -> tuple[str, str]:
        with explained_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(dir=folder, prefix=".seen-by-all-")).name, str(folder.absolute())

    name, path = team.from_leader(leave)
    try:
        yield name, path
    finally:
        if team.leads:
            os.rmdir(folder / name)


def _is_shown(path: Path) -> bool:
    deadline = time.monotonic() + _SHOWN_AFTER_SECONDS
    while not path.exists():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_EVERY_SECONDS)
    return True
