"""`jepa-lab dashboard`: optuna-dashboard on the study of a sweep, where it is installed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import types
import urllib.request
from pathlib import Path
from typing import Any

import click.testing
import pytest

from jepa_lab.cli import main
from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.pages import Place
from jepa_lab.sweeps.dashboard import serve_dashboard
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.study import TableStudy, open_storage
from tests.unit.sweeps.ablations import plan_of

ARMS = "arms: {a: {}, b: {masker: random}}\nbaseline: a\nseeds: [0, 1]\n"


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """A sweep whose study is there."""
    plan = plan_of(tmp_path, ARMS)
    made = SweepFolder.open_or_create(tmp_path / "sweeps", "s", ARMS, plan.to_record())
    study = TableStudy(open_storage(made.journal, None), plan.name, plan.direction, ["a", "b"], [0, 1])
    study.name_metric(plan.metric)
    return made


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_without_the_package_the_command_says_how_to_install_it(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    monkeypatch.setattr("importlib.import_module", _as_if_missing)
    done = click.testing.CliRunner().invoke(main, ["dashboard", str(folder.path)])
    assert done.exit_code == 2, done.output
    assert "pip install optuna-dashboard" in done.output


def _as_if_missing(name: str) -> types.ModuleType:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_name_that_is_no_sweep_and_a_study_elsewhere_are_refused(tmp_path: Path, folder: SweepFolder) -> None:
    done = click.testing.CliRunner().invoke(main, ["dashboard", "nothing", "--sweeps", str(tmp_path / "sweeps")])
    assert done.exit_code == 2
    assert "nothing" in done.output
    folder.journal.unlink()
    fake = types.ModuleType("optuna_dashboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "optuna_dashboard", fake)
        with pytest.raises(RunFolderError, match="--storage"):
            serve_dashboard(folder, None, Place(_free_port()))


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as reply:
        return bytes(reply.read())


def _visit(folder: SweepFolder, url_of: str, answers: list[bytes]) -> list[str]:
    """Serve the pages, ask for one, and end the command as a person would; what it said."""
    said: list[str] = []

    def ask(link: str) -> None:
        def asking() -> None:
            try:
                answers.append(_get(link.split("/dashboard", maxsplit=1)[0] + url_of))
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=asking, daemon=True).start()

    serve_dashboard(folder, None, Place(_free_port()), said.append, ask)
    return said


def test_the_pages_are_served_on_the_sweeps_study_until_the_command_is_ended(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []

    def wsgi(storage: Any) -> Any:
        served.append(storage)

        def page(environ: dict[str, Any], start: Any) -> list[bytes]:
            start("200 OK", [("Content-Type", "text/plain")])
            return [environ["PATH_INFO"].encode()]

        return page

    fake = types.ModuleType("optuna_dashboard")
    monkeypatch.setattr(fake, "wsgi", wsgi, raising=False)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", fake)
    answers: list[bytes] = []
    said = _visit(folder, "/dashboard/studies/0", answers)
    assert answers == [b"/dashboard/studies/0"]
    assert [study.study_name for study in served[0].get_all_studies()] == [folder.read_plan()["name"]]
    assert f"shows {folder.path}; Ctrl-C ends it" in said[0]
    assert "/dashboard/studies/0" in said[0]
    assert said[1] == "note: anyone logged in to this machine can read this study and change it, nobody else"
    assert said[-1] == "Optuna's pages are closed"


def test_optunas_dashboard_itself_shows_the_study(folder: SweepFolder) -> None:
    pytest.importorskip("optuna_dashboard")
    answers: list[bytes] = []
    _visit(folder, "/api/studies", answers)
    (study,) = json.loads(answers[0])["study_summaries"]
    assert study["study_name"] == folder.read_plan()["name"]


def test_a_port_in_use_is_refused(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", types.ModuleType("optuna_dashboard"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--port"):
            serve_dashboard(folder, None, Place(taken.getsockname()[1]))
