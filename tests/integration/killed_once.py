"""`torchrun ... -m tests.integration.killed_once FILE RUNS`: a run whose process 1 dies in its first start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jepa_lab.cli import main as command_line
from tests.integration.team_faults import follower_is_killed


def main() -> None:
    """Run FILE, and leave a file `killed` beside it."""
    file, runs = sys.argv[1:]
    killed = Path(file).with_name("killed")
    if os.environ["RANK"] == "1" and not killed.exists():
        killed.touch()
        follower_is_killed()
    command_line(["run", file, "--runs", runs, "--resume", "auto"])


if __name__ == "__main__":
    main()
