"""`jepa-lab dashboard`: Optuna's pages on the study of a sweep."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from socketserver import ThreadingMixIn
from types import ModuleType
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from jepa_lab.errors import ConfigError
from jepa_lab.pages import LOOPBACK, Place, open_browser, termination_as_interrupt
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.studies import open_studies


class _Server(ThreadingMixIn, WSGIServer):
    """Answers several requests of a page at once; none of them keeps the command from ending."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Prints no line per request."""

    def log_message(self, format: str, *arguments: object) -> None:
        """What a command prints is ours to say."""


def serve_dashboard(
    folder: SweepFolder,
    storage: str | None,
    place: Place,
    say: Callable[[str], None] = print,
    show: Callable[[str], object] = open_browser,
) -> None:
    """Serve the pages of optuna-dashboard on a sweep until Ctrl-C.

    Args:
        storage: Optuna URL, where the sweep was given one.
        say: what to do with the lines that give the address.
        show: what opens the address in a browser.
    Raises:
        ConfigError: optuna-dashboard is not installed, or the port is in use.
        RunFolderError: the study is not there.
    """
    dashboard = _dashboard()
    place.check()
    study = open_studies(folder, storage).first
    with (
        termination_as_interrupt(),
        make_server(place.host, place.port, dashboard.wsgi(study.storage), _Server, _Quiet) as server,
    ):
        page = f"/dashboard/studies/{study.id}"
        links = [f"{place.address(name)}{page}" for name in place.names if name != LOOPBACK or place.is_private]
        try:
            say(f"Optuna: {links[0]} shows {folder.path}; Ctrl-C ends it")
            for link in links[1:]:
                say(f"or: {link}")
            say(f"note: {place.who_can('read this study and change it')}")
            show(links[-1])
            server.serve_forever()
        except KeyboardInterrupt:
            say("Optuna's pages are closed")


def _dashboard() -> ModuleType:
    """The package of the pages.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("optuna_dashboard")
    except ModuleNotFoundError as error:
        if error.name != "optuna_dashboard":
            raise
        raise ConfigError(
            "Optuna's pages need the package optuna-dashboard, which is not installed; "
            "`pip install 'jepa-lab[dashboard]'`, or `pip install optuna-dashboard`"
        ) from None
