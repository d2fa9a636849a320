"""A stand-in for nvidia-cuda-mps-control: `-d` starts a daemon, commands come on its standard input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jepa_lab.sweeps.sharing import mps, slots
from jepa_lab.sweeps.sharing.memory import GIB
from jepa_lab.sweeps.sharing.mps_keeper import PIPES, TOOL

_SCRIPT = """#!/bin/sh
pipes=${CUDA_MPS_PIPE_DIRECTORY:-/nowhere}
pid=$pipes/nvidia-cuda-mps-control.pid
case $1 in
    serve)
        echo $$ >"$pid.new"; : >"$pipes/control"; mv "$pid.new" "$pid"
        echo "serving $$" >>"JOURNAL"
        while [ -e "$pipes/control" ]; do sleep 0.02; done
        rm "$pid"
        exit 0 ;;
    -d)
        echo "start $CUDA_VISIBLE_DEVICES" >>"JOURNAL"
        SABOTAGE
        rm -f "$pid"
        setsid "$0" serve </dev/null >/dev/null 2>&1 &
        while [ ! -e "$pid" ]; do sleep 0.02; done
        exit 0 ;;
esac
read -r command
echo "$command" >>"JOURNAL"
[ -e "$pid" ] && readlink "/proc/$(cat "$pid")/exe" >/dev/null || exit 1
if [ "$command" = quit ]; then
    rm "$pipes/control"
    while [ -e "$pid" ]; do sleep 0.02; done
fi
"""


class FakeMps:
    """The stand-in in PATH, on a machine whose GPUs have 40 GiB free each.

    Attributes:
        pipes: directory that CUDA programs use by themselves.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.journal, self.pipes = folder, folder / "journal", folder / "default"
        (folder / "bin").mkdir()
        self.tool = folder / "bin" / TOOL
        self.write()
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.delenv(PIPES, raising=False)
        monkeypatch.setattr(mps, "_DEFAULT_PIPES", self.pipes)
        monkeypatch.setattr(slots, "free_memory", lambda gpus: (40 * GIB,) * len(gpus))

    def write(self, sabotage: str = ":") -> None:
        """Put it in its place.

        Args:
            sabotage: shell command before a daemon starts.
        """
        self.tool.write_text(_SCRIPT.replace("JOURNAL", str(self.journal)).replace("SABOTAGE", sabotage))
        self.tool.chmod(0o755)

    def said(self, *words: str) -> list[str]:
        """The commands it got that begin with one of the words."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line for line in lines if line.split()[0] in words]


def daemon_pid(pipes: Path) -> int:
    """Process of the daemon of a pipe directory."""
    return int((pipes / f"{TOOL}.pid").read_text())


def is_alive(pid: int) -> bool:
    """Whether a process is at work; one that nobody has buried is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
