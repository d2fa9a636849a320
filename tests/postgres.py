"""A PostgreSQL server of a test's own, on the loopback interface, which the test may restart and kill."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_DEBIAN = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)  # which it does not put into PATH
_PATH = os.pathsep.join([os.environ.get("PATH", ""), *_DEBIAN])
_TOOLS = {name: shutil.which(name, path=_PATH) for name in ("initdb", "pg_ctl")}

PASSWORD = "S3CRET"


def why_not() -> str | None:
    """Why there can be no server here; None if there can."""
    missing = [name for name, path in _TOOLS.items() if path is None]
    if missing:
        return f"{', '.join(missing)} of PostgreSQL not found (Debian: apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return 'psycopg is not installed (pip install "psycopg[binary]")'
    with contextlib.suppress(KeyError):
        if os.geteuid() != 0 or pwd.getpwnam("postgres"):
            return None
    return "PostgreSQL does not run as root, and there is no user postgres"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """`postgres`, which is up when this has been made."""

    def __init__(self, root: Path) -> None:
        self._root, self.port, self._schemas = root, free_port(), 0
        self._data = root / "data"
        password = root / "password"
        password.write_text(PASSWORD)
        given = ("-A", "password", "-U", "lab", "--no-sync", "--no-locale", "-E", "UTF8")
        assert self._tool("initdb", *given, f"--pwfile={password}"), self._log()
        self.start()
        self.new_database("optuna")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = f"-F -p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._root}"
        given = ("-w", "-l", str(self._root / "log"), "-o", settings, "start")
        # Once more: what a killed one has left may take a moment to end.
        for _ in range(20):
            if self._tool("pg_ctl", *given):
                return
            time.sleep(0.5)
        raise AssertionError(self._log())

    def stop(self, mode: str = "fast") -> None:
        """End it; connections are cut, open transactions rolled back ("immediate": as by a crash)."""
        assert self._tool("pg_ctl", "-w", "-m", mode, "stop"), self._log()

    def is_up(self) -> bool:
        """Whether it runs."""
        return self._tool("pg_ctl", "status")

    def kill(self) -> None:
        """SIGKILL to the server and all of its processes, as a power cut would."""
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        (self._data / "postmaster.pid").unlink()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within the block its machine takes every packet, and nothing is answered."""
        stopped = self._pids()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        return [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]

    @contextlib.contextmanager
    def away(self, how: Callable[[PostgresServer], None]) -> Iterator[None]:
        """Within the block there is no server."""
        how(self)
        try:
            yield
        finally:
            self.start()

    def away_for(self, seconds: float, how: Callable[[PostgresServer], None]) -> threading.Timer:
        """End it now, and start it again so much later, meanwhile returning."""
        how(self)
        later = threading.Timer(seconds, self.start)
        later.start()
        return later

    def url(self, port: int | None = None) -> str:
        """The URL of an empty schema of the database, which takes less time and disk than a database of its own.

        Args:
            port: of a proxy; None is the server's own.
        """
        self._schemas += 1
        name = f"test{self._schemas}"
        self._sql("optuna", f"CREATE SCHEMA {name}")
        server = f"postgresql+psycopg://lab:{PASSWORD}@127.0.0.1:{port or self.port}"
        return f"{server}/optuna?options=-csearch_path%3D{name}"

    def new_database(self, name: str) -> str:
        """Make a database; its URL."""
        self._sql("postgres", f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://lab:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def _sql(self, database: str, command: str) -> None:
        import psycopg

        server = f"host=127.0.0.1 port={self.port} user=lab password={PASSWORD} dbname={database}"
        with psycopg.connect(server, autocommit=True) as connected:
            connected.execute(command.encode())

    def _tool(self, tool: str, *arguments: str) -> bool:
        path = _TOOLS[tool]
        assert path is not None
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, path, "-D", str(self._data), *arguments]
        # Into a file: the server would keep a pipe open.
        with open(self._root / "tools.log", "ab") as log:
            done = subprocess.run(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=60
            )
        return done.returncode == 0

    def _log(self) -> str:
        return (self._root / "tools.log").read_text()


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server for the time of the block, in a folder that its user can reach, which those of pytest are not."""
    root = Path(tempfile.mkdtemp(prefix="jepa-lab-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(root, "postgres")
    # However these tests end, its standard input does, too.
    end = f"read _; kill -QUIT $(head -n 1 {root}/data/postmaster.pid); sleep 1; rm -rf {root}"
    keeper = subprocess.Popen(
        ["sh", "-c", end], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield PostgresServer(root)
    finally:
        keeper.communicate(timeout=120)


class LosingProxy:
    """A TCP proxy in front of a server, that cuts connections at commits.

    Attributes:
        lose: asked at each commit that arrives: None passes it on; "request" cuts the connection before the server
            sees it, "answer" when the server has carried it out.
        commits: how many have arrived.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.lose: Callable[[int], str | None] = lambda number: None
        self.commits = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server_port)) as server:
            lost = threading.Event()
            back = threading.Thread(target=self._answer, args=(server, client, lost), daemon=True)
            back.start()
            while data := client.recv(65536):
                fate = None
                if b"COMMIT\0" in data:
                    fate = self.lose(self.commits)
                    self.commits += 1
                if fate == "request":
                    break
                if fate == "answer":
                    lost.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if lost.is_set():
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
