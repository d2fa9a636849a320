"""The whole job in folders whose names mean something else in a URI: the record lies in that very folder, complete."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlencode

import click.testing
import pytest

from jepa_lab.cli import main
from jepa_lab.tracking.mirror_cursor import mirror_state, mlflow_run_id
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import TINY, write_tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's own
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # SQLite connections in SQLAlchemy's pools
]

NAMES = ["a b", "a%20b", "a?b", "a#b", "a+b", "a&b", "ä", "a;b", "a'b"]
SMALL = TINY.replace("tracking: none", "tracking: {name: mlflow, flush_seconds: 0.5}").replace("epochs: 3", "epochs: 1")
ABLATION = """\
name: losses
base: tiny.yaml
baseline: smooth
arms:
  smooth: {}
  l2: {loss: l2}
seeds: [0]
"""


def neighbours_of(name: str) -> set[str]:
    """What a folder becomes when its name is taken for a URI, or for a URI that was escaped twice."""
    cut = {name.partition(mark)[0] for mark in "?#;&"}
    return {unquote(name), quote(name), quote(quote(name)), name.replace("+", " "), *cut} - {name}


@contextlib.contextmanager
def only_here(parent: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder `name` as the current one; nothing may be written beside it, nor into its namesakes."""
    folder = parent / name
    folder.mkdir()
    for neighbour in neighbours_of(name):
        (parent / neighbour).mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        yield folder
    assert {path.name for path in parent.iterdir()} == {name} | neighbours_of(name)
    assert [list((parent / neighbour).iterdir()) for neighbour in neighbours_of(name)] == [[]] * len(
        neighbours_of(name)
    )


def jepa_lab(*arguments: str) -> str:
    """What a command prints, which must succeed."""
    result = click.testing.CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def only_run(root: str) -> RunFolder:
    (path,) = Path(root).iterdir()
    return RunFolder.open(path)


def in_store(database: str, query: str, *values: str) -> list[tuple[object, ...]]:
    """Rows of a database, read without SQLAlchemy."""
    with contextlib.closing(sqlite3.connect(f"./{database}")) as connection:
        return connection.execute(query, values).fetchall()


def assert_recorded(run: RunFolder, database: str, artifacts: str) -> None:
    """The store has the run, finished, with its metrics, its files and its weights."""
    assert mirror_state(run).complete
    run_id = mlflow_run_id(run)
    assert run_id is not None
    ((status,),) = in_store(database, "SELECT status FROM runs WHERE run_uuid = ?", run_id)
    assert status == "FINISHED"
    keys = {key for (key,) in in_store(database, "SELECT key FROM latest_metrics WHERE run_uuid = ?", run_id)}
    assert {"train/loss", "probe/test_accuracy"} <= keys
    found = {path.relative_to(artifacts).as_posix() for path in Path(artifacts).rglob("*")}
    assert {f"{run_id}/artifacts/config.yaml", f"{run_id}/artifacts/figures"} <= found
    assert any(name.endswith("/model.safetensors") for name in found)


@pytest.mark.parametrize("name", ["a%20b", "a?b"])
def test_a_run_is_recorded_in_the_very_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_here(tmp_path, name, monkeypatch):
        write_tiny(Path.cwd(), SMALL)
        assert "--uri" not in jepa_lab("run", "tiny.yaml")  # `jepa-lab ui` opens this store anyway
        run = only_run("runs")
        assert_recorded(run, "mlflow.db", "mlflow-artifacts")
        assert run.name.removesuffix("-s0") in jepa_lab("compare", "--format", "csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_job_is_recorded_in_the_very_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with only_here(tmp_path, name, monkeypatch):
        write_tiny(Path.cwd(), SMALL)
        Path("ablation.yaml").write_text(ABLATION)
        jepa_lab("run", "tiny.yaml")
        run = only_run("runs")
        assert_recorded(run, "mlflow.db", "mlflow-artifacts")
        jepa_lab("probe", str(run.path), "probe.encoder=context")
        jepa_lab("run", "--resume", str(run.path.absolute()))
        jepa_lab("attention", str(run.path), "--out", "attention.png")
        run.mirror.unlink()
        assert "has everything" in jepa_lab("sync", str(run.path))
        assert_recorded(run, "mlflow.db", "mlflow-artifacts")

        sweep = ("sweep", "ablation.yaml", "--slots", "1", "--storage", "sqlite:///optuna.db")
        jepa_lab(*sweep, "tracking.uri=sqlite:///other%3F.db", "tracking.artifact_location=kept%20here")
        swept = only_run("sweeps")
        assert mirror_state(swept).complete
        for trial in (swept.path / "trials").iterdir():
            assert_recorded(RunFolder.open(trial), "other?.db", "kept%20here")
        assert in_store("optuna.db", "SELECT count(*) FROM trials") == [(2,)]
        jepa_lab("report", str(swept.path), "--storage", "sqlite:///optuna.db")
        assert "l2" in jepa_lab("compare", str(swept.path), "--format", "md")
        assert run.name.removesuffix("-s0") in jepa_lab("compare", "--format", "csv")


@contextlib.contextmanager
def pages() -> Iterator[str]:
    """`jepa-lab ui` on the current folder; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jepa_lab", "ui", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a%20b", "a?b", "a;b"])
def test_the_pages_show_the_run_and_its_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_here(tmp_path, name, monkeypatch):
        write_tiny(Path.cwd(), SMALL)
        jepa_lab("run", "tiny.yaml")
        run_id = mlflow_run_id(only_run("runs"))
        assert run_id is not None
        with pages() as address:
            query = urlencode({"run_uuid": run_id, "path": "config.yaml"})
            with urllib.request.urlopen(f"{address}/get-artifact?{query}") as answer:
                assert answer.read() == only_run("runs").config.read_bytes()
