"""Whole sweeps by the command line with their trials in a database that goes away: nothing is lost, nothing leaks."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

from jepa_lab.cli import main
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.studies import open_studies
from jepa_lab.tracking.base import MirrorState
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.mirror_cursor import mirror_state, mlflow_run_id
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.fault_proxy import wait_until
from tests.integration.mlflow_server import MlflowServer
from tests.integration.test_sweep import numbers, sweep, write_ablation
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment
from tests.postgres import PASSWORD, PostgresServer, postgres, why_not

pytestmark = [*MLFLOW_WARNINGS, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as started:
        yield started


class Command:
    """`jepa-lab sweep` with a database, at work."""

    def __init__(self, root: Path, url: str, log: str, *overrides: str) -> None:
        self.log = root / log
        command = [sys.executable, "-m", "jepa_lab", "sweep", "ablation.yaml", *overrides]
        command += ["--slots", "1", "--storage", url]
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                command, cwd=root, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def said(self, pattern: str) -> bool:
        """Whether it has said so, within two minutes."""
        return wait_until(lambda: re.search(pattern, self.log.read_text()))

    def end(self) -> int:
        """Its exit code."""
        return self.process.wait(240)

    def kill(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


@pytest.mark.slow
def test_a_sweep_waits_for_its_database_is_stopped_by_ctrl_c_and_resumed_without_training_anything_twice(
    tmp_path: Path, server: PostgresServer
) -> None:
    file, url = write_ablation(tmp_path), server.url()
    first = Command(tmp_path, url, "first.log")
    try:
        assert wait_until(lambda: len(list(tmp_path.glob("sweeps/*/trials/*/metrics.jsonl"))) == 1)
        with server.away(PostgresServer.kill):
            assert first.said(
                r"is unreachable \(.*\); running trials continue; retrying until \d\d:\d\d:\d\d \(5 min\)"
            )
            first.process.send_signal(signal.SIGINT)
            assert first.end() == 130, first.log.read_text()
    finally:
        first.kill()
    again = Command(tmp_path, url, "again.log")
    try:
        assert wait_until(lambda: len(list(tmp_path.glob("sweeps/*/trials/*/metrics.jsonl"))) == 3)
        with server.away(PostgresServer.stop):
            assert again.said("is unreachable")
        assert again.end() == 0, again.log.read_text()
    finally:
        again.kill()
    assert "answers again after" in again.log.read_text()
    (folder,) = (tmp_path / "sweeps").iterdir()
    opened = SweepFolder.open(folder)
    trials = report_input(opened, open_studies(opened, url)).trials
    assert len(list(opened.trials.iterdir())) == len(trials) == 4
    (tmp_path / "undisturbed").mkdir()
    _, undisturbed = sweep(file, tmp_path / "undisturbed")
    assert numbers(trials).equals(numbers(undisturbed.report.trials))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]


@pytest.mark.slow
def test_an_mlflow_server_whose_database_is_restarted_has_every_run_whole(
    tmp_path: Path, server: PostgresServer
) -> None:
    from mlflow import MlflowClient

    write_ablation(tmp_path)
    with kept_environment(NO_PROXY="127.0.0.1"):
        mlflow = MlflowServer(tmp_path, server.new_database("mlflow"))
        uri = f"http://127.0.0.1:{mlflow.port}"
        trials = "sweeps/*/trials/*"
        try:
            command = Command(tmp_path, server.url(), "sweep.log", "tracking=mlflow", f"tracking.uri={uri}")
            try:
                for count in (1, 3):
                    assert wait_until(lambda count=count: len(list(tmp_path.glob(f"{trials}/metrics.jsonl"))) == count)
                    with server.away(PostgresServer.kill):
                        rows = [path.stat().st_size for path in tmp_path.glob(f"{trials}/metrics.jsonl")]
                        assert wait_until(  # training goes on
                            lambda rows=rows: (
                                [path.stat().st_size for path in tmp_path.glob(f"{trials}/metrics.jsonl")] != rows
                            )
                        )
                assert command.end() == 0, command.log.read_text()
            finally:
                command.kill()
            folders = [RunFolder(path) for path in tmp_path.glob(trials)]
            assert len(folders) == 4
            assert wait_until(lambda: all(mirror_state(folder) == MirrorState() for folder in folders))
            client = MlflowClient(uri)
            for folder in folders:
                run_id = mlflow_run_id(folder)
                assert run_id is not None
                assert client.get_run(run_id).info.status == "FINISHED"
                losses = [(row.step, row.metrics.get("train/loss")) for row in read_metrics(folder.metrics)]
                kept = [(point.step, point.value) for point in client.get_metric_history(run_id, "train/loss")]
                assert sorted(kept) == [(step, loss) for step, loss in losses if loss is not None]
        finally:
            mlflow.kill()


@pytest.mark.parametrize("command", ["report", "dashboard"])
def test_a_command_that_reads_an_unreachable_database_ends_with_one_sentence(tmp_path: Path, command: str) -> None:
    if command == "dashboard":
        pytest.importorskip("optuna_dashboard")
    write_ablation(tmp_path)
    folder = SweepFolder.open_or_create(tmp_path, "s", "a: 1\n", {"name": "s"})
    url = f"postgresql+psycopg://lab:{PASSWORD}@127.0.0.1:1/optuna"
    done = click.testing.CliRunner().invoke(main, [command, str(folder.path), "--storage", url])
    assert done.exit_code == 3, done.output
    assert "the storage postgresql+psycopg://127.0.0.1:1/optuna is unreachable (" in done.output
    assert "check the URL of --storage, start the database, then run the same command again" in done.output
    assert PASSWORD not in done.output
