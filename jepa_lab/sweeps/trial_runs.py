"""The run folders of a sweep's trials, without listing the folder of all of them at every look.

A run of a pipeline and a seed is named after both, a second one gets `-2`, and a new run takes the first name that is
free. So one listing when the parent starts, and then a look at these names, find what a listing would.
"""

from __future__ import annotations

import re
from pathlib import Path

from jepa_lab.resume import is_finished, newest_last
from jepa_lab.tracking.run_folder import RunFolder

_NUMBERED = re.compile(r"(?P<stem>.+-s\d+)-(?P<number>\d+)")


class TrialRuns:
    """Finds the runs of trials.

    Args:
        root: the folder of the run folders, which is listed once.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: dict[str, int] = {}  # highest number of a stem: somebody may have removed one before it
        for path in root.iterdir():
            found = _NUMBERED.fullmatch(path.name)
            if found is not None:
                stem, number = found["stem"], int(found["number"])
                self._last[stem] = max(number, self._last.get(stem, 1))

    def all_of(self, stem: str) -> list[RunFolder]:
        """The runs of a pipeline and a seed, the newest last.

        Args:
            stem: what they are named after, see `resume.run_stem`.
        """
        found, number = [], 1
        while True:
            folder = RunFolder(self._root / (stem if number == 1 else f"{stem}-{number}"))
            if folder.config.is_file():
                found.append(folder)
            elif number >= self._last.get(stem, 1) and not folder.path.exists():
                return newest_last(found)
            number += 1

    def finished(self, stem: str) -> RunFolder | None:
        """One of them that has finished, or None."""
        return next((folder for folder in self.all_of(stem) if is_finished(folder)), None)
