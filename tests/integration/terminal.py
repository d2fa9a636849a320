"""A pseudo-terminal of a command's own, which a test can close under it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_IN_A_SESSION_OF_ITS_OWN = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_PATIENCE_SECONDS = 120.0


class Terminal:
    """`python ARGUMENTS` as the first process of a session whose terminal this is, as a shell in a window would be.

    A context manager. What the command writes is read all the time, so that it never waits for the test.

    Args:
        arguments: of Python. columns: width of the terminal.
    """

    def __init__(self, *arguments: str | Path, cwd: Path, columns: int = 80, env: dict[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_A_SESSION_OF_ITS_OWN, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": str(columns), **(env or {})},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait while the command runs, but not for ever."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not happened():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.01)

    def text(self) -> str:
        """What the command has written so far, with the codes that move the cursor."""
        return self.shown.decode(errors="replace")

    def close(self) -> None:
        """Close the window: the command gets SIGHUP, and whatever it writes from now on fails."""
        self._closing.set()
        self._reader.join()

    def wait(self) -> int:
        """The exit code of the command, once it has ended."""
        return self.process.wait(_PATIENCE_SECONDS)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.close()

    def _read(self) -> None:
        # Never in the middle of a read when it is to be closed: the kernel would keep it open until the read is over.
        while not self._closing.is_set():
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    self.shown += os.read(self._master, 65536)
                except OSError:  # the command has ended
                    break
        os.close(self._master)
