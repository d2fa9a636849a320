"""The link to the runs of an experiment: MLflow's plain one lands on an empty page of traces."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from jepa_lab.tracking.mlflow_pages import runs_link


class _Answers(BaseHTTPRequestHandler):
    body = b""
    authorizations: list[str | None]

    def do_GET(self) -> None:
        type(self).authorizations.append(self.headers["Authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    _Answers.authorizations = []
    with HTTPServer(("127.0.0.1", 0), _Answers) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def _experiments(*names: str) -> bytes:
    """The newest first, as the server is asked for them; number 0 is MLflow's own."""
    found = [{"experiment_id": str(place + 1), "name": name} for place, name in enumerate(names)]
    return json.dumps({"experiments": [*found, {"experiment_id": "0", "name": "Default"}]}).encode()


@pytest.mark.parametrize(
    ("body", "page"),
    [
        (_experiments("newer", "mine"), "/#/experiments/2/runs?workflowType=machine_learning"),
        (_experiments("newer", "older"), "/#/experiments/1/runs?workflowType=machine_learning"),
        (_experiments(), "/#/experiments"),
        (b"{}", "/#/experiments"),
        (b"<html>another server</html>", "/#/experiments"),
        (b"[]", "/#/experiments"),
    ],
    ids=["of the name", "the newest", "none", "empty", "no JSON", "another JSON"],
)
def test_the_link_is_that_of_the_experiments_runs(server: HTTPServer, body: bytes, page: str) -> None:
    _Answers.body = body
    address = f"http://127.0.0.1:{server.server_port}"
    assert runs_link(address, "http://node42:5000/", "mine") == f"http://node42:5000{page}"


def test_the_server_is_asked_with_the_credentials_which_are_not_shown(server: HTTPServer) -> None:
    _Answers.body = _experiments("mine")
    link = runs_link(f"http://ann:s%2Fcret@127.0.0.1:{server.server_port}", "http://shown", "mine")
    assert link == "http://shown/#/experiments/1/runs?workflowType=machine_learning"
    assert _Answers.authorizations == [f"Basic {base64.b64encode(b'ann:s/cret').decode()}"]


def test_a_server_that_does_not_answer_is_shown_by_its_experiments() -> None:
    assert runs_link("http://127.0.0.1:9", "http://shown", "mine") == "http://shown/#/experiments"
