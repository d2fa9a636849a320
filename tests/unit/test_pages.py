"""Pages that commands serve: who reaches them, by which names, and when a browser is opened."""

from __future__ import annotations

import socket
import webbrowser

import pytest

from jepa_lab.errors import ConfigError
from jepa_lab.pages import Place, open_browser


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_a_loopback_interface_is_for_those_who_are_logged_in(host: str) -> None:
    place = Place(5000, host)
    assert place.is_private
    assert place.names == (host,)
    assert place.who_can("read it") == "anyone logged in to this machine can read it, nobody else"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_interfaces_are_shown_by_the_name_of_the_machine_and_reached_from_here(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node42")
    place = Place(5001, host)
    assert not place.is_private
    assert place.names == ("node42", "localhost", "127.0.0.1")
    assert place.from_here in ("http://127.0.0.1:5001", "http://[::1]:5001")
    assert "anyone who can reach port 5001 of this machine can read it, without a password" in place.who_can("read it")
    assert "ssh -L 5001:localhost:5001" in place.who_can("read it")


def test_a_host_that_is_no_interface_and_a_port_in_use_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1.*--port"):  # an address that no machine has
        Place(0, "192.0.2.1").check()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"port \d+ on 127\.0\.0\.1 cannot be used .*--port"):
            Place(taken.getsockname()[1]).check()


def test_a_browser_is_opened_only_where_there_is_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda link: bool(opened.append(link)) or True)
    monkeypatch.setattr("jepa_lab.pages.sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not open_browser("http://a")
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert open_browser("http://a")
    assert opened == ["http://a"]
