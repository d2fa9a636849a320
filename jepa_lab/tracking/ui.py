"""`jepa-lab ui`: MLflow's own pages on the right store, at the page that lists the runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO
from urllib.parse import urlsplit

from jepa_lab.errors import ConfigError, JepaLabError
from jepa_lab.pages import LOOPBACK, Place, open_browser, termination_as_interrupt
from jepa_lab.tracking.credentials import scrub, with_credentials, without_credentials
from jepa_lab.tracking.mlflow_pages import runs_link
from jepa_lab.tracking.store_choice import choose_experiment, choose_store
from jepa_lab.tracking.uris import default_artifact_location, sqlite_path, uri_for_mlflow

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_ALLOWED_HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"
_ALLOWED_ORIGINS = "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
# MLflow's own choice where nothing is said: addresses that no name on the internet has.
_PRIVATE_ADDRESSES = ("192.168.*", "10.*", *(f"172.{number}.*" for number in range(16, 32)))


def serve_ui(
    uri: str | None, place: Place, say: Callable[[str], None] = print, show: Callable[[str], object] = open_browser
) -> None:
    """Serve the MLflow pages of a store until Ctrl-C; for a tracking server, say where its own pages are.

    Args:
        uri: tracking URI; None for that of the environment (MLFLOW_TRACKING_URI), else `mlflow.db` in the current
            folder.
        say: what to do with the lines that give the address.
        show: what opens the address in a browser.
    Raises:
        ConfigError: if the URI is wrong, there is no such database, or the port is in use.
        JepaLabError: if MLflow's server ended by itself, with the end of its output.
    """
    store, experiment = choose_store(uri, "--uri"), choose_experiment(None, "").value
    if store.value.startswith("databricks"):
        say(f"{store.shown} is a workspace of Databricks; open its pages in a browser")
        return
    if store.value.startswith(("http://", "https://")):
        link = runs_link(with_credentials(store.value), without_credentials(store.value), experiment)
        say(f"{store.shown} is a tracking server; its runs are at {link}")
        show(link)
        return
    database = sqlite_path(store.value)
    if database is not None and not database.is_file():
        raise ConfigError(
            f"there is no MLflow database {database.absolute()} ({store.why}); run a pipeline first "
            "(`jepa-lab run ...`), go to the folder in which you ran it, or name the store with --uri"
        )
    place.check()
    with tempfile.TemporaryFile() as output, termination_as_interrupt():
        say("starting MLflow's pages, which takes some seconds")
        server = _start(with_credentials(store.value), place, output)
        try:
            _wait_until_it_answers(server, place, output)
            links = _links(place, experiment)
            say(f"MLflow: {links[0]} shows {store.shown}; Ctrl-C ends it")
            for link in links[1:]:
                say(f"or: {link}")
            say(f"note: {place.who_can('read, change and delete these runs')}")
            show(links[-1])
            server.wait()
            raise _ended(server, output)
        except KeyboardInterrupt:
            say("MLflow's pages are closed")
        finally:
            _stop(server)


def _links(place: Place, experiment: str) -> list[str]:
    """The page of the runs by the names of this machine, that of this machine alone last."""
    names = [name for name in place.names if name != LOOPBACK or place.is_private]
    return [runs_link(place.from_here, place.address(name), experiment) for name in names]


def server_options(place: Place, environment: dict[str, str]) -> list[str]:
    """Options by which MLflow's server answers to the names of this machine, and to those that the environment adds.

    MLflow answers no other names, so that a page of another site cannot ask it; requests that change something (a
    search of runs counts as one) must come from a page of those names.
    """
    options = ["--host", place.host, "--port", str(place.port), "--workers", "1"]
    if place.is_private:
        return options
    added = [name for name in environment.get(_ALLOWED_HOSTS, "").split(",") if name]
    names = [*place.names, *_PRIVATE_ADDRESSES]
    hosts = [*names, *(f"{name}:{place.port}" for name in names), *added]
    origins = [place.address(name) for name in names]
    origins += [f"{scheme}://{name}" for name in added for scheme in ("http", "https")]
    origins += [origin for origin in environment.get(_ALLOWED_ORIGINS, "").split(",") if origin]
    return [*options, "--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(origins)]


def _start(store: str, place: Place, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server; the store goes through the environment, where `ps` does not show its password."""
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": uri_for_mlflow(store),
        "MLFLOW_DISABLE_TELEMETRY": os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true"),
        # Four processes for jobs that no page of a run needs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": os.environ.get("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"),
    }
    location = default_artifact_location(store)
    if location is not None:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = location
    command = [sys.executable, "-m", "mlflow", "ui", *server_options(place, environment)]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # it starts workers, which are ended with it as one group
    )


def _wait_until_it_answers(server: subprocess.Popen[bytes], place: Place, output: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    local = urlsplit(place.from_here)
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise _ended(server, output)
        with contextlib.suppress(OSError), socket.create_connection((local.hostname or "", place.port), timeout=1):
            return
        time.sleep(0.2)
    raise JepaLabError(
        f"MLflow's server did not answer on {place.host}:{place.port} within {_START_SECONDS:.0f} s; try again"
    )


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
