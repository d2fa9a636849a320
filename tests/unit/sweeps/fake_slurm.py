"""Commands by the names of Slurm's, which answer what a test says and note what they were asked."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

_COMMAND = """#!/bin/sh
name=${{0##*/}}
cd {folder}
echo "$name $*" >> calls
case "$*" in *--test-only*) name=test ;; esac
[ $name = sbatch ] && cat > script
n=0
while [ -f $name.hold ] && [ $n -lt 1200 ]; do touch $name.held; sleep 0.05; n=$((n + 1)); done
if [ -f $name.err ]; then cat $name.err >&2; exit 1; fi
if [ $name = sbatch ]; then wc -l < calls; elif [ -f $name.out ]; then cat $name.out; fi
"""
UNREACHABLE = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


class FakeSlurm:
    """sbatch, squeue, scancel and scontrol, first on PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "fake-slurm"
        self.folder.mkdir()
        for name in ("sbatch", "squeue", "scancel", "scontrol"):
            file = self.folder / name
            file.write_text(_COMMAND.format(folder=self.folder))
            file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.folder}{os.pathsep}{os.environ['PATH']}")

    def calls(self, name: str) -> list[str]:
        """What a command was asked, oldest first."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name]

    def submitted(self) -> list[str]:
        """The options of each `sbatch` that was to take a job."""
        return [call for call in self.calls("sbatch") if "--test-only" not in call]

    def script(self) -> str:
        """What the last job runs."""
        return (self.folder / "script").read_text()

    def fails(self, name: str, words: str | None = UNREACHABLE) -> None:
        """A command fails with these words from now on; None: it works again. `test` is `sbatch --test-only`."""
        file = self.folder / f"{name}.err"
        if words is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(words + "\n")

    def holds(self, name: str) -> None:
        """A command does not end from now on."""
        (self.folder / f"{name}.hold").touch()

    def wait_until_held(self, name: str) -> None:
        """Until one does not."""
        deadline = time.monotonic() + 60
        while not (self.folder / f"{name}.held").exists():
            assert time.monotonic() < deadline, f"{name} was not called"
            time.sleep(0.02)

    def releases(self, name: str) -> None:
        """It ends."""
        (self.folder / f"{name}.hold").unlink()

    def lists(self, *jobs: Sequence[str]) -> None:
        """`squeue` lists these: number, state, node, reason, name."""
        (self.folder / "squeue.out").write_text("".join("|".join(job) + "\n" for job in jobs))

    def describes(self, words: str) -> None:
        """`scontrol show job` prints this."""
        (self.folder / "scontrol.out").write_text(words + "\n")
