"""A terminal that closes, and any other output that fails: the run ends as it would have ended anyway."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from jepa_lab.resume import resume_run
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.mirror_cursor import mirror_state
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import load_tiny, write_tiny
from tests.integration.terminal import Terminal

LONG = ["training.epochs=60", "training.checkpoint_every_steps=10000", "probe.every_epochs=60"]
ABLATION = "name: closed\nbase: tiny.yaml\nbaseline: a\narms: {a: {}, b: {loss: l2}}\nseeds: [0]\n"


def steps_of(root: Path) -> list[int]:
    """The last logged step of every run below a folder."""
    return [row.step for file in root.rglob("metrics.jsonl") for row in read_metrics(file)[-1:]]


def result_of(run: Path) -> dict[str, Any]:
    result = RunFolder.open(run).read_result()
    assert result is not None
    return result


def test_a_terminal_that_closes_under_the_live_bar_stops_the_run_with_its_state(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    with Terminal("-m", "jepa_lab", "run", "tiny.yaml", *LONG, "tracking=mlflow", cwd=tmp_path) as terminal:
        terminal.wait_until(lambda: max(steps_of(tmp_path), default=0) >= 6 and "images/s" in terminal.text())
        terminal.close()
        assert terminal.wait() == 129
    (run,) = (tmp_path / "runs").iterdir()
    result, log, folder = result_of(run), (run / "log.txt").read_text(), RunFolder.open(run)
    assert (result["status"], result["error"]) == ("KILLED", "SIGHUP")
    assert "Traceback" not in log + terminal.text()
    assert "stopped by SIGHUP (the last checkpoint is at step" in log
    assert CheckpointStore(folder.checkpoints).steps()[-1] == result["last_step"] >= 6
    deadline = time.monotonic() + 120
    while not mirror_state(folder).complete:  # the mirror outlives the terminal
        assert time.monotonic() < deadline, mirror_state(folder)
        time.sleep(0.05)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT status FROM runs").fetchall() == [("KILLED",)]
    resumed = resume_run(folder, load_tiny(tmp_path, *LONG, "tracking=none").pipeline, [])
    assert resumed.result["status"] == "FINISHED"


def test_a_terminal_that_closes_before_training_stops_the_run_with_its_code(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    code = (
        "import jepa_lab.composition.data as data, time; from jepa_lab.cli import main\n"
        "def load(*arguments):\n"
        "    print('it loads')\n"
        "    time.sleep(600)\n"
        "data.load_data = load\n"
        "main(['run', 'tiny.yaml'])"
    )
    with Terminal("-c", code, cwd=tmp_path) as terminal:
        terminal.wait_until(lambda: "it loads" in terminal.text())
        terminal.close()
        assert terminal.wait() == 129
    assert not (tmp_path / "runs").exists()


def test_a_terminal_that_closes_under_a_command_without_training_ends_it_with_the_code_of_the_signal(
    tmp_path: Path,
) -> None:
    code = (
        "import time; from jepa_lab.cli import main\n"
        "def wait(**options):\n"
        "    print('it waits')\n"
        "    try:\n"
        "        time.sleep(600)\n"
        "    finally:\n"
        "        open('cleaned-up', 'w').close()\n"
        "        print('to nobody')\n"
        "main.commands['schema'].callback = wait\n"
        "main(['schema'])"
    )
    with Terminal("-c", code, cwd=tmp_path) as terminal:
        terminal.wait_until(lambda: "it waits" in terminal.text())
        terminal.close()
        assert terminal.wait() == 129
    assert (tmp_path / "cleaned-up").exists()


def test_nohup_keeps_a_run_going_when_its_terminal_closes(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable, '-m', 'jepa_lab', *sys.argv[1:]])"
    )
    with Terminal("-c", code, "run", "tiny.yaml", "training.epochs=40", cwd=tmp_path) as terminal:
        terminal.wait_until(lambda: max(steps_of(tmp_path), default=0) >= 2)
        terminal.close()
        assert terminal.wait() == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert result_of(run)["status"] == "FINISHED"
    assert "Traceback" not in (run / "log.txt").read_text()


@pytest.mark.slow
def test_a_terminal_that_closes_stops_a_sweep_whose_trials_save_their_state_and_which_can_be_resumed(
    tmp_path: Path,
) -> None:
    write_tiny(tmp_path)
    (tmp_path / "ablation.yaml").write_text(ABLATION)
    arguments = ["-m", "jepa_lab", "sweep", "ablation.yaml", "--slots", "2", "training.epochs=40"]
    arguments += ["training.checkpoint_every_steps=10000", "probe.every_epochs=40"]
    with Terminal(*arguments, cwd=tmp_path) as terminal:
        terminal.wait_until(lambda: len([step for step in steps_of(tmp_path) if step >= 6]) == 2)
        terminal.close()
        assert terminal.wait() == 129
    (sweep,) = (tmp_path / "sweeps").iterdir()
    results = {path.parent.name: json.loads(path.read_text()) for path in sweep.glob("trials/*/result.json")}
    assert [result["status"] for result in results.values()] == ["KILLED", "KILLED"]
    assert all(result["last_step"] >= 6 for result in results.values())
    assert result_of(sweep)["status"] == "KILLED"
    assert (sweep / "report" / "report.html").exists()
    assert "Traceback" not in terminal.text() + "".join(log.read_text() for log in sweep.rglob("*log*"))
    with Terminal(*arguments, cwd=tmp_path, columns=120) as terminal:
        assert terminal.wait() == 0
    assert result_of(sweep)["status"] == "FINISHED"
    assert len(list((sweep / "trials").iterdir())) == 2
