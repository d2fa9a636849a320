"""`jepa-lab ui`: MLflow's own pages on the right store, on the loopback interface."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO, NoReturn

from jepa_lab.errors import ConfigError, JepaLabError
from jepa_lab.tracking.credentials import scrub, with_credentials
from jepa_lab.tracking.store_choice import choose_store
from jepa_lab.tracking.uris import default_artifact_location, sqlite_path, uri_for_mlflow

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


def serve_ui(uri: str | None, port: int, host: str = "127.0.0.1", say: Callable[[str], None] = print) -> None:
    """Serve the MLflow pages of a store until Ctrl-C; for a tracking server, say where its own pages are.

    Args:
        uri: tracking URI; None for that of the environment (MLFLOW_TRACKING_URI), else `mlflow.db` in the current
            folder.
        host: the interface; other machines cannot reach the default.
        say: what to do with the line that gives the address.
    Raises:
        ConfigError: if the URI is wrong, there is no such database, or the port is in use.
        JepaLabError: if MLflow's server ended by itself, with the end of its output.
    """
    store = choose_store(uri, "--uri")
    if store.value.startswith(("http://", "https://", "databricks")):
        say(f"{store.shown} is a tracking server; open that address in a browser")
        return
    database = sqlite_path(store.value)
    if database is not None and not database.is_file():
        raise ConfigError(
            f"there is no MLflow database {database.absolute()} ({store.why}); run a pipeline first "
            "(`jepa-lab run ...`), go to the folder in which you ran it, or name the store with --uri"
        )
    _check_port(host, port)
    with tempfile.TemporaryFile() as output, _termination_as_interrupt():
        say("starting MLflow's pages, which takes some seconds")
        server = _start(with_credentials(store.value), host, port, output)
        try:
            _wait_until_it_answers(server, host, port, output)
            say(f"MLflow: http://{host}:{port} shows {store.shown}; Ctrl-C ends it")
            server.wait()
            raise _ended(server, output)
        except KeyboardInterrupt:
            say("MLflow's pages are closed")
        finally:
            _stop(server)


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP (a closed terminal) do what Ctrl-C does, so that the server never outlives us."""
    if threading.current_thread() is not threading.main_thread():  # signals are for the main thread
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # a second one must not disturb the end of the server
        raise KeyboardInterrupt

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup does it
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"port {port} on {host} cannot be used ({reason}); choose another with --port") from None


def _start(store: str, host: str, port: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server; the store goes through the environment, where `ps` does not show its password."""
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri_for_mlflow(store),
        "MLFLOW_DISABLE_TELEMETRY": os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true"),
    }
    location = default_artifact_location(store)
    if location is not None:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = location
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # it starts workers, which are ended with it as one group
    )


def _wait_until_it_answers(server: subprocess.Popen[bytes], host: str, port: int, output: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise _ended(server, output)
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.2)
    raise JepaLabError(f"MLflow's server did not answer on {host}:{port} within {_START_SECONDS:.0f} s; try again")


def _ended(server: subprocess.Popen[bytes], output: IO[bytes]) -> JepaLabError:
    output.seek(0)
    last = scrub(output.read().decode("utf-8", errors="replace")).strip().splitlines()[-5:]
    return JepaLabError(f"MLflow's server ended with code {server.returncode}; its last words:\n" + "\n".join(last))


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
