"""Kill a run at chosen file operations, for test_kills.py: `python -m tests.integration.kill_points FOLDER COUNT`.

Every attempt is a forked child, which saves the seconds that importing torch takes. An audit hook counts the file
operations in the run root (open, mkdir, rename, remove, ...) and sends SIGKILL to the child before the chosen one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

from jepa_lab.composition.start import start_run
from jepa_lab.resume import find_unfinished, resume_run
from tests.integration.pipelines import load_tiny


class KillPoint:
    """Counts the file operations below a folder; kills the process before operation `at`."""

    def __init__(self, below: Path, at: int | None) -> None:
        self.below, self.at, self.seen = str(below), at, 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not arguments or not (event == "open" or event.startswith(("os.", "tempfile.", "shutil."))):
            return
        if isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(self.below):
            self.seen += 1
            if self.seen == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def attempt(folder: Path, runs: Path, kill_at: int | None) -> int:
    """Start the tiny run, or go on with the one that is there, in a child.

    Returns:
        Its wait status.
    """
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        KillPoint(runs, kill_at)
        loaded = load_tiny(folder)
        found = find_unfinished(runs, loaded.pipeline)
        if found is not None:
            resume_run(found, loaded.pipeline, [])
        elif not any(runs.glob("*/result.json")):  # or the last kill came when everything was done
            start_run(loaded, runs, [])
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Kill at `COUNT` operations spread over a whole run, each time in a new run root; print what happened as JSON."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    # In this process, so that the children inherit what a run imports late.
    counter = KillPoint(folder / "whole", None)
    start_run(load_tiny(folder), folder / "whole", [])
    operations = counter.seen
    chance = random.Random(0)
    points = sorted(chance.sample(range(1, operations + 1), min(count, operations)))
    report = []
    for point in points:
        runs = folder / f"killed-{point}"
        first = attempt(folder, runs, point)
        second = attempt(folder, runs, chance.randrange(1, operations))  # again, somewhere in the resumed run
        last = second if second == 0 else attempt(folder, runs, None)
        report.append({"point": point, "runs": str(runs), "first": first, "second": second, "last": last})
    print(json.dumps({"operations": operations, "points": report}))


if __name__ == "__main__":
    main()
