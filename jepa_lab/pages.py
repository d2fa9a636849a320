"""Web pages that a command serves on this machine: the port, who can read them, and the browser."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from jepa_lab.errors import ConfigError

LOOPBACK = "127.0.0.1"
_ALL_INTERFACES = ("0.0.0.0", "::")


def check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be listened on.

    Raises:
        ConfigError: it is taken, or this machine has no such interface.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(
            f"--host {host} is no interface of this machine ({error.strerror}); use 0.0.0.0 for all of them"
        ) from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"port {port} on {host} cannot be used ({reason}); choose another with --port") from None


def is_loopback(host: str) -> bool:
    """Whether other machines cannot reach this interface."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def reachable_names(host: str) -> list[str]:
    """The names by which browsers may reach a page on this interface, the best to show first."""
    if is_loopback(host):
        return [host]
    machine = socket.gethostname()
    return list(dict.fromkeys([machine if host in _ALL_INTERFACES else host, machine, "localhost", LOOPBACK]))


def address_of(name: str, port: int) -> str:
    """`http://NAME:PORT`."""
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def local_address(host: str, port: int) -> str:
    """Where this process itself reaches a page on this interface."""
    return address_of({"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host), port)


def who_can_read(host: str, may: str) -> str:
    """A sentence about who else sees the pages.

    Args:
        may: what such a person can do, such as "read, change and delete these runs".
    """
    if is_loopback(host):
        return f"only people who are logged in to this machine can {may}"
    return (
        f"everyone who can reach this machine can {may}, without a password; in a container publish the port "
        f"(`docker run -p 127.0.0.1:PORT:PORT ...`), on a shared machine prefer `ssh -L PORT:localhost:PORT` without --host"
    )


def open_browser(link: str) -> bool:
    """Open a link where a browser with a window is there; whether one was found."""
    has_screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if not has_screen:  # a browser in the terminal would hide what the command prints
        return False
    try:
        return webbrowser.open(link)
    except webbrowser.Error:
        return False


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP (a closed terminal) do what Ctrl-C does, so that no server outlives its command."""
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


