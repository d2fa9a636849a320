"""A process or machine that a run loses, at whatever moment, ends the others with one sentence; a restart resumes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jepa_lab import __version__
from jepa_lab.composition.start import start_run
from jepa_lab.tracking.environment import source_digest
from tests.integration.pipelines import load_tiny, write_tiny
from tests.integration.team import free_port, static_rendezvous, torchrun_on_two_machines, two_agents
from tests.integration.test_distributed import SHORT, assert_equal_to_rounding, errors_in, faulty_teams, only_run

SOURCE = source_digest()[:8]
OWN_NETWORK = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Starts a command in a network of its own, which it may cut."""


def the_error(report: dict[str, Any], case: str, rank: int) -> str:
    """The only error that a process told; it must end all that it said, without a traceback."""
    said = report[case]["said"][rank]
    assert "Traceback" not in said, said
    (error,) = errors_in(said)
    return error


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return faulty_teams(
        tmp_path_factory.mktemp("lost"), "absent", "connecting", "waiting", "interrupted", "in_evaluation"
    )


def test_a_process_that_never_comes_is_named(lost: dict[str, Any]) -> None:
    assert lost["absent"]["codes"] == [3, -9]
    assert "missing: 1 (counted from 0)" in the_error(lost, "absent", 0)


def test_a_process_that_dies_while_all_connect_ends_the_others(lost: dict[str, Any]) -> None:
    assert lost["connecting"]["codes"] == [3, -9]
    assert "could not connect" in the_error(lost, "connecting", 0)


def test_sigterm_ends_a_process_that_waits_for_others(lost: dict[str, Any]) -> None:
    assert lost["waiting"]["codes"] == [143, 3]
    assert "Traceback" not in lost["waiting"]["said"][0]
    assert "over which its processes meet, failed" in the_error(lost, "waiting", 1)  # the leader kept the store


def test_ctrl_c_ends_a_process_that_waits_for_others(lost: dict[str, Any]) -> None:
    assert lost["interrupted"]["codes"] == [130, 3]
    assert lost["interrupted"]["said"][0] == "stopped by SIGINT\n"


def test_a_process_that_dies_during_an_evaluation_ends_the_others(lost: dict[str, Any]) -> None:
    assert lost["in_evaluation"]["codes"] == [3, -9]
    assert "another of the 2 processes of this run has died" in the_error(lost, "in_evaluation", 0)


@pytest.fixture(scope="module")
def differing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("differing")
    return folder, faulty_teams(folder, *DIFFERENCES)


DIFFERENCES = {
    "pipeline": "process 1 differs from process 0: training.epochs 5 instead of 3; start the same command",
    "command": "process 1 differs from process 0: --resume auto instead of None; start the same command",
    "version": f"process 1 differs from process 0: jepa-lab 0.0.1, source {SOURCE} instead of {__version__}, source",
    "other_images": "process 1 differs from process 0: images digest of others instead of digest ",
    "folder": "/folder/runs/elsewhere (not the same folder) instead of ",
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_process_that_differs_from_the_first_is_refused(differing: tuple[Path, dict[str, Any]], case: str) -> None:
    folder, report = differing
    assert report[case]["codes"] == [2, 2], report[case]["said"]
    assert DIFFERENCES[case] in the_error(report, case, 0)
    assert report[case]["said"][1] == ""
    assert list(folder.glob(f"{case}/runs/*")) == list(folder.glob(f"{case}/runs/.*")) == []


@pytest.mark.slow
def test_a_process_that_dies_at_any_other_moment_ends_the_others(tmp_path: Path) -> None:
    report = faulty_teams(tmp_path, "absent_leader", "meeting", "gradients", "checkpoint")
    assert {case: each["codes"] for case, each in report.items()} == {
        "absent_leader": [-9, 3],
        "meeting": [-9, 3],
        "gradients": [3, -9],
        "checkpoint": [-9, 3],
    }
    assert "nothing answers at 127.0.0.1:" in the_error(report, "absent_leader", 1)
    assert "failed" in the_error(report, "meeting", 1)
    assert "has died" in the_error(report, "gradients", 0)


@pytest.mark.slow
def test_a_machine_that_no_longer_answers_ends_the_others(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*OWN_NETWORK, "true"], check=False).returncode != 0:
        pytest.skip("no network of its own can be made here")
    for case in ("network", "network_in_evaluation"):
        command = [*OWN_NETWORK, sys.executable, "-m", "tests.integration.team_faults", str(tmp_path), case]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        report: dict[str, Any] = json.loads(done.stdout)
        assert report[case]["codes"] == [3, 3], case
        assert "or its machine no longer answers" in the_error(report, case, 0)


@pytest.mark.slow
def test_two_machines_train_as_one_process_does_and_write_one_folder(tmp_path: Path) -> None:
    torchrun_on_two_machines(tmp_path, {"runs": SHORT})
    alone = start_run(load_tiny(tmp_path, *SHORT), tmp_path / "alone", []).folder
    assert_equal_to_rounding(only_run(tmp_path / "runs"), alone)


@pytest.mark.slow
def test_machines_whose_current_folders_differ_are_refused_and_both_tell_why(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    ended = two_agents(("-m", "jepa_lab", "run", str(write_tiny(tmp_path))), *static_rendezvous(), folders=folders)
    difference = f"{folders[1] / 'runs'} (not the same folder) instead of {folders[0] / 'runs'}; start torchrun in the"
    for code, said in ended:
        assert code == 1  # torchrun's; it names that of the process
        assert said.count(difference) == 1
        assert "exitcode  : 2" in said


@pytest.mark.slow
@pytest.mark.parametrize("own_store", ["0", "1"])
def test_torchrun_restarts_a_run_on_two_machines_which_resumes(tmp_path: Path, own_store: str) -> None:
    """torchrun's store holds what the first start left, and its agents need not count restarts alike."""
    file, runs = write_tiny(tmp_path), tmp_path / "runs"
    rendezvous = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "run")
    ended = two_agents(
        ("-m", "tests.integration.killed_once", str(file), str(runs)),
        *(*rendezvous, "--max-restarts", "1"),
        environment={"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": own_store},
    )
    assert [code for code, _ in ended] == [0, 0], ended
    stopped = only_run(runs)
    assert (tmp_path / "killed").exists()
    assert "training from step 5 to 15 on 2 processes" in stopped.log.read_text()
    assert_equal_to_rounding(stopped, start_run(load_tiny(tmp_path), tmp_path / "alone", []).folder)
