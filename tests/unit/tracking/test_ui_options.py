"""Which names MLflow's server answers to."""

from __future__ import annotations

import fnmatch
import socket

import pytest

from jepa_lab.pages import Place
from jepa_lab.tracking.ui import server_options


def _lists(options: list[str]) -> tuple[list[str], list[str]]:
    """Allowed hosts and origins."""
    given = dict(zip(options[::2], options[1::2], strict=True))
    return given["--allowed-hosts"].split(","), given["--cors-allowed-origins"].split(",")


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)  # as MLflow compares


def test_on_the_loopback_interface_mlflows_own_rules_hold() -> None:
    assert server_options(Place(5000), {}) == ["--host", "127.0.0.1", "--port", "5000", "--workers", "1"]


@pytest.mark.parametrize("name", ["node42", "localhost", "127.0.0.1", "192.168.1.7", "10.2.3.4", "172.20.0.3"])
def test_on_all_interfaces_the_names_and_private_addresses_of_the_machine_are_answered(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node42")
    hosts, origins = _lists(server_options(Place(5001, "0.0.0.0"), {}))
    assert _matches(f"{name}:5001", hosts)
    assert _matches(f"http://{name}:5001", origins)  # a search of runs is a POST, which has an origin


@pytest.mark.parametrize("name", ["evil.example:5001", "node42.evil.example:5001", "172.32.0.1:5001", "8.8.8.8:5001"])
def test_other_names_are_not_answered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node42")
    hosts, origins = _lists(server_options(Place(5001, "0.0.0.0"), {}))
    assert not _matches(name, hosts)
    assert not _matches(f"http://{name}", origins)


def test_the_environment_adds_names() -> None:
    environment = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": "gpu7.example.org:5001",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://proxy.example.org",
    }
    hosts, origins = _lists(server_options(Place(5001, "0.0.0.0"), environment))
    assert "gpu7.example.org:5001" in hosts
    assert {"http://gpu7.example.org:5001", "https://gpu7.example.org:5001", "https://proxy.example.org"} <= set(
        origins
    )
