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
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from jepa_lab.errors import ConfigError

LOOPBACK = "127.0.0.1"
_FROM_HERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # all interfaces -> one of them


@dataclass(frozen=True)
class Place:
    """Where pages are served.

    Attributes:
        host: the interface; other machines cannot reach the default.
    """

    port: int
    host: str = LOOPBACK

    def check(self) -> None:
        """Refuse a port that cannot be listened on.

        Raises:
            ConfigError: it is taken, or this machine has no such interface.
        """
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise ConfigError(
                f"--host {self.host} is not an interface of this machine ({error.strerror}); 0.0.0.0 is all of them"
            ) from None
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                raise ConfigError(
                    f"port {self.port} on {self.host} cannot be used ({error.strerror}); choose another with --port"
                ) from None

    @property
    def is_private(self) -> bool:
        """Whether other machines cannot reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def names(self) -> tuple[str, ...]:
        """By which browsers may reach it, the best to show first; the last are those of this machine for itself."""
        if self.is_private:
            return (self.host,)
        machine = socket.gethostname()
        own = machine if self.host in _FROM_HERE else self.host
        return tuple(dict.fromkeys((own, machine, "localhost", LOOPBACK)))

    @property
    def from_here(self) -> str:
        """The address at which this process itself reaches the pages."""
        return self.address(_FROM_HERE.get(self.host, self.host))

    def address(self, name: str) -> str:
        """`http://NAME:PORT`."""
        return f"http://[{name}]:{self.port}" if ":" in name else f"http://{name}:{self.port}"

    def who_can(self, do: str) -> str:
        """Who else has access, in words.

        Args:
            do: what such a person can do, such as "read and change these runs".
        """
        if self.is_private:
            return f"anyone logged in to this machine can {do}, nobody else"
        return (
            f"anyone who can reach port {self.port} of this machine can {do}, without a password. For yourself alone, "
            f"leave --host out and use `ssh -L {self.port}:localhost:{self.port}`, or publish the port of a container "
            f"with `-p 127.0.0.1:{self.port}:{self.port}`"
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
