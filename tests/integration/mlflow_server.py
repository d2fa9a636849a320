"""A real MLflow server for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.integration.fault_proxy import wait_until


class MlflowServer:
    """`mlflow server` on the loopback interface, with its database open to SQL.

    Args:
        store: URI of another database than the SQLite file in `root`.
    """

    def __init__(self, root: Path, store: str | None = None) -> None:
        self.root = root
        self.database = root / "server.db"
        self._store = f"sqlite:///{self.database}" if store is None else store
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it on its port and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self._store]
        command += ["--artifacts-destination", str(self.root / "artifacts")]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # four processes that no test needs
        with open(self.root / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        assert wait_until(self._answers), (self.root / "server.log").read_text()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
            return True
        return False

    def kill(self) -> None:
        """End it and its workers as a power cut would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def sql(self, query: str, *values: str) -> list[tuple[object, ...]]:
        """Ask the database itself."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(query, values).fetchall()
