"""MLflow's environment variables: what docs/mlflow.md says of each is what happens."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jepa_lab.cli import main
from jepa_lab.tracking.description import RunDescription
from jepa_lab.tracking.mirror import sync
from jepa_lab.tracking.mlflow_store import DEFAULTS, FIXED, quiet_mlflow
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import write_tiny
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

pytestmark = [
    *MLFLOW_WARNINGS,
    pytest.mark.filterwarnings("ignore:Unverified HTTPS request"),
]
PAGE = Path(__file__).parents[2] / "docs" / "mlflow.md"


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment(NO_PROXY="127.0.0.1"):
        yield


class _Server(ThreadingHTTPServer):
    """Remembers the headers of every request and answers none of them as MLflow would.

    Attributes:
        status: of every answer. pause: seconds before it.
    """

    daemon_threads = True
    status, pause = 404, 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.requests.append(dict(self.headers))
        time.sleep(self.server.pause)
        self.send_response(self.server.status)
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = _answer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def _sync(tmp_path: Path, uri: str | None = None) -> str:
    """Bring a run to its tracker, which fails; the error that it tells."""
    folder = RunFolder.create(tmp_path, "run", "0123456789", 0, "name: run\n")
    folder.write_environment({})
    folder.write_description(RunDescription({}, {}, tracker=MlflowTracker(MlflowParams(uri=uri)).settings()))
    return str(sync(folder.path).error)


def _authorization(server: _Server) -> str:
    return server.requests[0].get("Authorization", "none")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_the_store_of_the_environment_is_asked_with_its_password(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:p%40ss@{server.address}")
    assert "p@ss" not in _sync(tmp_path)
    assert _authorization(server) == _basic("ann", "p@ss")
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"p%40ss" not in file.read_bytes(), file


def test_a_password_in_the_environments_uri_goes_to_no_other_server(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:p%40ss@127.0.0.1:9")
    _sync(tmp_path, f"http://{server.address}")
    assert _authorization(server) == "none"


@pytest.mark.parametrize("command", ["compare", "sync"])
def test_a_recorded_store_is_used_whatever_the_environment_says(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server.address}")
    _sync(tmp_path)
    (folder,) = tmp_path.iterdir()
    server.requests.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    CliRunner().invoke(main, [command, str(folder)])
    assert server.requests


def test_compare_asks_the_store_of_the_environment_unless_another_is_named(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server.address}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    result = CliRunner().invoke(main, ["compare"])
    assert result.exit_code == 2
    assert f"http://{server.address} (from MLFLOW_TRACKING_URI)" in result.output
    assert len(server.requests) == 1
    result = CliRunner().invoke(main, ["compare", "--uri", "http://127.0.0.1:9"])
    assert "http://127.0.0.1:9 (from --uri)" in result.output
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("variables", "header", "value"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "t0ken"}, "Authorization", "Bearer t0ken"),
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Authorization", _basic("u", "p")),
        ({"MLFLOW_WORKSPACE": "team"}, "X-MLFLOW-WORKSPACE", "team"),
    ],
    ids=["token", "user and password", "workspace"],
)
def test_what_a_request_carries_is_honoured(
    tmp_path: Path,
    server: _Server,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    header: str,
    value: str,
) -> None:
    for name, given in variables.items():
        monkeypatch.setenv(name, given)
    error = _sync(tmp_path, f"http://{server.address}")
    assert server.requests[0].get(header) == value
    assert "t0ken" not in error


def test_the_timeout_of_a_request_is_honoured(tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pause = 30.0
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    assert "timed out" in _sync(tmp_path, f"http://{server.address}").lower()


@pytest.mark.parametrize(("retries", "requests"), [(None, 1), ("2", 3)])
def test_retries_of_mlflows_own_are_those_that_are_asked_for(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch, retries: str | None, requests: int
) -> None:
    server.status = 500
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    if retries is not None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)
    _sync(tmp_path, f"http://{server.address}")
    assert len(server.requests) == requests


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that nobody has signed, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    own = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    signed = builder.add_extension(own, critical=False).sign(key, hashes.SHA256())
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.mark.parametrize(
    ("variable", "trusted"),
    [(None, False), ("MLFLOW_TRACKING_INSECURE_TLS", True), ("MLFLOW_TRACKING_SERVER_CERT_PATH", True)],
)
def test_a_server_whose_certificate_nobody_signed_is_trusted_only_when_told_to(
    tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch, variable: str | None, trusted: bool
) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    if variable is not None:
        monkeypatch.setenv(variable, "true" if "INSECURE" in variable else str(certificate))
    error = _sync(tmp_path / "runs", f"https://{server.address}")
    assert bool(server.requests) == trusted
    assert ("certificate" in error.lower()) != trusted


def test_a_variable_that_is_no_number_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in _sync(tmp_path, "http://127.0.0.1:9")


def test_what_would_break_the_record_is_fixed_and_the_rest_is_the_users_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*DEFAULTS, *FIXED):
        monkeypatch.setenv(name, "7")
    quiet_mlflow()
    assert {name: os.environ[name] for name in DEFAULTS} == dict.fromkeys(DEFAULTS, "7")
    assert {name: os.environ[name] for name in FIXED} == FIXED


def test_a_run_is_recorded_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/team/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "vision")
    file = write_tiny(tmp_path)
    file.write_text(file.read_text().replace("tracking: none", "tracking: {name: mlflow, flush_seconds: 0.1}"))
    result = CliRunner().invoke(main, ["run", str(file)], terminal_width=200)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "mlflow.db").exists()
    (folder,) = (RunFolder(path) for path in (tmp_path / "runs").iterdir())
    content = folder.read_result()
    assert content is not None
    assert content["tracking"] == {
        "uri": f"sqlite:///{tmp_path}/team/mlflow.db",
        "uri_from": "MLFLOW_TRACKING_URI",
        "experiment": "vision",
        "experiment_from": "MLFLOW_EXPERIMENT_NAME",
    }
    line = "MLflow experiment 'vision' (from MLFLOW_EXPERIMENT_NAME)"
    assert line in " ".join(result.output.split())
    assert line in folder.log.read_text()
    assert sync(folder.path).complete
    compared = CliRunner().invoke(main, ["compare", "--format", "md"])
    assert compared.exit_code == 0, compared.output
    assert "tiny" in compared.output


def _table() -> list[str]:
    """The variables of the page's table, some of them patterns."""
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `MLFLOW_")]
    return [name for row in rows for name in re.findall(r"`(MLFLOW_[A-Z0-9_*]+)`", row)]


_ELSEWHERE = (
    "*TRACE*", "*TRACING*", "MLFLOW_GENAI_*", "*JUDGE*", "*SCORING*", "*GATEWAY*", "*ASSISTANT*", "*SANDBOX*",
    "*WEBHOOK*", "*DEPLOYMENT*", "*HUGGINGFACE*", "*PROMPT*", "*UC_*", "*OTEL*", "*OTLP*", "*ICON_URL*",
    "*MODEL_CATALOG*", "*JOB_*", "*SQL_*", "*CONDA*", "*SPAN*", "*_ENV_*", "*NOTEBOOK*", "*MCP*", "*TESTING*",
    "*SLOW_TESTS*", "*LANGCHAIN*", "*OPENAI*", "*SAGEMAKER*", "*DOCKER*", "*WHEELED*", "*TRACER*",
    "MLFLOW_IN_CAPTURE_MODULE_PROCESS", "MLFLOW_ENABLE_SGC_RUN_RESUMPTION_FOR_DATABRICKS_JOBS",
)  # fmt: skip
"""Patterns of the variables that the page's last sentence is about."""


def test_every_variable_of_mlflows_client_is_in_the_table_and_every_line_of_the_table_is_of_mlflow() -> None:
    import mlflow
    from mlflow import environment_variables

    version = re.search(r"Of MLflow (\d+\.\d+)", PAGE.read_text())
    assert version is not None
    if not mlflow.__version__.startswith(version[1]):
        pytest.skip(f"the table is that of MLflow {version[1]}, and {mlflow.__version__} is installed")
    each = vars(environment_variables).values()
    known = {found.name for found in each if isinstance(found, environment_variables._EnvironmentVariable)}
    known = {name for name in known if name.startswith("MLFLOW_")}
    patterns = _table()
    untold = {name for name in known if not any(fnmatchcase(name, each) for each in patterns)}
    assert {name for name in untold if not any(fnmatchcase(name, each) for each in _ELSEWHERE)} == set()
    assert [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in known)] == []


def test_the_table_tells_what_is_set_when_nothing_is_set() -> None:
    text = PAGE.read_text()
    for name, value in DEFAULTS.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert value in line, line
    for name in FIXED:
        assert f"`{name}`" in text
