"""The sweep's end of the pipes to the Ray driver."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa_lab.tracking.atomic import explained_writes

_PARTING_SECONDS = 15.0
_CHUNK = 65536

Words = dict[str, Any]
"""What the driver says; "word" is one of these:

connected (address) | unconnected (kind, text): of the cluster, or why not
nodes (nodes): those alive, each with its resources, when they change
over (job, end, text, returned): how a task ended; see `driver` and `command`
"""


class DriverGone(Exception):
    """The driver has ended by itself: Ray ends one that has lost its cluster."""


class DriverLink:
    """A driver process, which ends when this is closed, and when this process ends.

    Args:
        log: what Ray prints. address, cpus: see `driver`.
    """

    def __init__(self, log: Path, address: str, cpus: int, environment: Mapping[str, str]) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-P", "-m", "jepa_lab.sweeps.on_ray.driver", str(writer), address, str(cpus)]
        with explained_writes(log), open(log, "ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writer],
                env=dict(environment),
                start_new_session=True,  # Ctrl-C in the terminal is for the sweep, which passes it on
            )
        os.close(writer)
        self._reader, self._unread = reader, b""

    def start(self, job: str, options: Mapping[str, Any], arguments: Sequence[Any]) -> None:
        """Begin a task: `perform_command` with these arguments."""
        self._order(order="start", job=job, options=options, arguments=arguments)

    def end(self, jobs: Collection[str]) -> None:
        """Cancel tasks."""
        self._order(order="end", jobs=list(jobs))

    def listen(self, seconds: float) -> list[Words]:
        """What the driver has said; at most about `seconds` are waited for the first word.

        Raises:
            DriverGone: it has ended, and all that it said has been heard.
        """
        while select.select([self._reader], [], [], seconds)[0]:
            chunk = os.read(self._reader, _CHUNK)
            if not chunk:
                raise DriverGone
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            if lines:
                return [json.loads(line) for line in lines]
        return []

    def close(self) -> None:
        """End the driver, what still runs, and the cluster if it is ours."""
        self._order(order="leave")
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PARTING_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        os.close(self._reader)

    def kill(self) -> None:
        """End the driver without its help; what Ray started for it ends with it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which `listen` says
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
