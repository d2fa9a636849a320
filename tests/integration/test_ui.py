"""`jepa-lab ui` with MLflow's own server: the link is that of the runs, and strangers are not answered."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa_lab.tracking.mlflow_store import connect, find_or_create_experiment
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from tests.integration.fault_proxy import wait_until
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

pytestmark = [
    pytest.mark.slow,
    *MLFLOW_WARNINGS,
]


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment():
        yield


def _search(port: int, experiment: str, host: str, origin: str) -> int:
    """Status of the request by which MLflow's page gets its runs."""
    headers = {"Content-Type": "application/json", "Host": host, "Origin": origin}
    body = json.dumps({"experiment_ids": [experiment]}).encode()
    url = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/search"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body, headers), timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_pages_of_all_interfaces_answer_to_the_name_of_the_machine_and_not_to_strangers(tmp_path: Path) -> None:
    settings = MlflowTracker(MlflowParams(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment="mine")).settings()
    assert settings is not None
    experiment = find_or_create_experiment(connect(settings), settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "jepa_lab", "ui", "--host", "0.0.0.0", "--port", str(port), "--no-open"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "", "MLFLOW_EXPERIMENT_NAME": ""}
    with open(tmp_path / "said.txt", "wb") as said:
        ui = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said, stderr=said, start_new_session=True)
    name = socket.gethostname()
    try:
        assert wait_until(lambda: "note:" in (tmp_path / "said.txt").read_text(), 240), (
            tmp_path / "said.txt"
        ).read_text()
        text = (tmp_path / "said.txt").read_text()
        page = f"/#/experiments/{experiment}/runs?workflowType=machine_learning"
        assert f"MLflow: http://{name}:{port}{page} shows sqlite:///{tmp_path}/mlflow.db" in text
        assert f"or: http://localhost:{port}{page}" in text
        assert "without a password" in text
        for known in (f"{name}:{port}", f"localhost:{port}", f"192.168.7.7:{port}"):
            assert _search(port, experiment, known, f"http://{known}") == 200, known
        assert _search(port, experiment, "evil.example", "http://evil.example") == 403
        assert _search(port, experiment, f"{name}:{port}", "http://evil.example") == 403
    finally:
        with contextlib.suppress(ProcessLookupError):
            ui.send_signal(signal.SIGTERM)
        ui.wait(60)
    assert (tmp_path / "said.txt").read_text().endswith("MLflow's pages are closed\n")
