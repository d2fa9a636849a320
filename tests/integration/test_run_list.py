"""`jepa-lab ls` and `jepa-lab show`: every run with its state, and a damaged one hides no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import jepa_lab.composition.work as work_module
from jepa_lab.composition.start import start_run
from jepa_lab.errors import JepaLabError
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import load_tiny
from tests.integration.test_cli import invoke, refused

SHORT = ("training.epochs=1", "probe.method.c_grid=[0.1]", "probe.additional=[]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that a signal stopped, one whose result is damaged, and a folder of something else."""
    folder = tmp_path_factory.mktemp("listed")
    root = folder / "runs"
    start_run(load_tiny(folder, *SHORT, "name=done"), root, [])

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_module, "final_evaluation", interrupt)
        with pytest.raises(JepaLabError, match="stopped by SIGINT"):
            start_run(load_tiny(folder, *SHORT, "name=stopped"), root, [])
    damaged = start_run(load_tiny(folder, *SHORT, "name=damaged"), root, []).folder
    damaged.result.write_text(damaged.result.read_text().replace("FINISHED", "FINISHEd"))
    (root / "notes").mkdir()
    return root


def test_every_run_is_listed_with_its_state(runs: Path) -> None:
    lines = {line["name"].split("-")[0]: line for line in json.loads(invoke("ls", "--runs", runs, "--json").output)}
    assert {name: line["state"] for name, line in lines.items()} == {
        "done": "finished",
        "stopped": "stopped",
        "damaged": "unreadable",
    }
    finished = next(RunFolder(path) for path in runs.iterdir() if path.name.startswith("done"))
    result = finished.read_result()
    assert result is not None
    assert lines["done"]["validation_accuracy"] == result["metrics"]["probe/validation_accuracy"]
    assert lines["done"]["step"] == lines["stopped"]["step"] == result["last_step"]


def test_the_table_shows_accuracies_beside_controls_and_what_is_wrong(runs: Path) -> None:
    text = invoke("ls", "--runs", runs).output
    for words in ("finished", "stopped", "unreadable", "random", "its checksum does not match"):
        assert words in text, words


def test_a_finished_run_is_shown_as_it_ended_and_another_as_far_as_it_came(runs: Path) -> None:
    names = {path.name.split("-")[0]: path.name for path in runs.iterdir()}
    shown = invoke("show", names["done"], "--runs", runs).output
    assert "control: raw pixels" in shown
    assert "RankMe" in shown
    stopped = invoke("show", names["stopped"], "--runs", runs).output
    assert "jepa-lab run --resume" in stopped
    assert "probe/online_validation_accuracy" in stopped
    content = json.loads(invoke("show", names["done"], "--runs", runs, "--json").output)
    assert content["result"]["status"] == "FINISHED"


def test_a_root_without_runs_says_so(tmp_path: Path) -> None:
    assert "no run in" in invoke("ls", "--runs", tmp_path).output
    assert "there is no folder" in refused("ls", "--runs", tmp_path / "missing")
