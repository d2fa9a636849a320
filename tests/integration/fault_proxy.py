"""A proxy between the mirror and an MLflow server which fails as real networks and servers do."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of being passed on and answered.

    Attributes:
        status: answer with this status, without asking the server. body, headers: of that answer.
        delay_seconds: wait before passing the request on.
        forget: pass the request on, and close the connection without an answer.
        silent: accept the request and never answer, until the proxy is closed.
    """

    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    forget: bool = False
    silent: bool = False


HTML = b"<html><body>Please log in to the guest network</body></html>"
FAULTS = {
    "error 500": Fault(500, b"Internal Server Error"),
    "error 503 in MLflow's JSON": Fault(503, b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}'),
    "error 404 of a proxy": Fault(404, HTML),
    "too many requests": Fault(429, b"slow down"),
    "too many requests for an hour": Fault(429, b"slow down", {"Retry-After": "3600"}),
    "HTML with status 200": Fault(200, HTML, {"Content-Type": "text/html"}),
    "an empty body with status 200": Fault(200),
    "a JSON list with status 200": Fault(200, b"[]", {"Content-Type": "application/json"}),
    "wrong JSON with status 200": Fault(200, b'{"run": 5, "metrics": {}}', {"Content-Type": "application/json"}),
    "a redirect to nowhere": Fault(302, b"", {"Location": "/login"}),
    "a lost acknowledgement": Fault(forget=True),
    "an answer that is too slow": Fault(delay_seconds=1.5),
}


@dataclass
class _Plan:
    """A fault for the requests `after` the first ones whose path contains `path`, so many `times`."""

    fault: Fault
    path: str
    after: int
    times: float


class FaultProxy:
    """A threaded HTTP proxy on a port of its own in front of a server.

    Attributes:
        requests: method and path of everything that arrived.
        logged: name and step of every metric point that the server acknowledged, as often as it did.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.requests: list[tuple[str, str]] = []
        self.logged: list[tuple[str, int]] = []
        self._plans: list[_Plan] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._listen(0)

    @property
    def uri(self) -> str:
        """The tracking URI of the server behind this proxy."""
        return f"http://127.0.0.1:{self.port}"

    def plan(self, fault: Fault, path: str = "", after: int = 0, times: float = 1) -> None:
        """Let requests fail."""
        with self._lock:
            self._plans.append(_Plan(fault, path, after, times))

    def mend(self) -> None:
        """Pass everything on again, and let go of requests that were never answered."""
        with self._lock:
            self._plans.clear()
        self._closing.set()
        self._closing = threading.Event()

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Within the block nobody listens on the port."""
        self.close()
        yield
        self._closing = threading.Event()
        self._listen(self.port)

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _listen(self, port: int) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _QuietServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Note a request, and say what is to happen to it."""
        with self._lock:
            self.requests.append((method, path))
            for plan in self._plans:
                if plan.path in path:
                    if plan.after > 0:
                        plan.after -= 1
                    elif plan.times > 0:
                        plan.times -= 1
                        return plan.fault
        return None

    def note_answer(self, path: str, body: bytes, status: int) -> None:
        """Remember the metric points that the server took."""
        if status == 200 and path.endswith("/runs/log-batch"):
            with self._lock:
                points = json.loads(body).get("metrics", [])
                self.logged.extend((point["key"], int(point.get("step", 0))) for point in points)

    def wait(self, seconds: float | None) -> None:
        """Wait so long, but not beyond the next `mend`."""
        self._closing.wait(seconds)


class _QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what these tests are about; nothing to print."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # a connection a request: what happens to one does not touch the next
    owner: FaultProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.owner.next_fault(self.command, self.path) or Fault()
        if fault.silent:
            self.owner.wait(None)
            return
        if fault.delay_seconds:
            self.owner.wait(fault.delay_seconds)
        if fault.status is not None:
            self._answer(fault.status, dict(fault.headers), fault.body)
            return
        status, headers, content = self._ask_server(body)
        self.owner.note_answer(self.path.partition("?")[0], body, status)
        if fault.forget:
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._answer(status, headers, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _ask_server(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.owner.server_port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            return answer.status, kept, answer.read()
        except OSError:
            return 502, {}, b"Bad Gateway"
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the terminal."""


def wait_until(condition: Any, seconds: float = 120.0) -> bool:
    """Whether a condition came true in time; a bound for tests that hang, not a measurement."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
