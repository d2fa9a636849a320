"""A run in two processes is the run of one, to rounding; whatever ends one process ends the other, with its reason."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_plugins
from jepa_lab.maskers.base import MASKERS
from jepa_lab.resume import resume_run
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.folders import write_photos
from tests.integration.pipelines import load_tiny
from tests.integration.runs import final_weights, timeless_rows
from tests.integration.team import torchrun

load_plugins([])

SHORT = ("training.epochs=2", "probe.method.c_grid=[0.1]", "training.log_every_steps=1", "probe.every_epochs=2")
FINE = "encoder.patch_size=1"  # the reference's blocks need an 8x8 grid
CLIPPED = ("training.accumulation_steps=3", "training.gradient_clip_norm=0.05")
RUNS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "clipped": ("masker=random", "context_batching=pad", *CLIPPED, "augmentation=none"),
    "dropping": ("encoder.size.depth=2", "encoder.drop_path_rate=0.5", *CLIPPED),
    "hierarchy": (
        FINE,
        "hierarchy={num_levels: 3, downsampling: conv, skip_connections: true, loss_weights: [1.0, 0.7, 0.5]}",
        "training.accumulation_steps=3",
    ),
    "one predictor for all levels": (
        FINE,
        "hierarchy={num_levels: 3, predictor: shared, count_targets_on: level_below}",
        "masker.num_hidden_blocks=1",
        "training.activation_checkpointing=true",
    ),
    "pca": ("target={name: pca, num_components: 3}",),
    "streaming": (FINE, "masker=reference_multi_block", "context_batching=prefix", "data.residency=streaming"),
    "joint": ("masker=single_block", "context_batching=subset", "predictor.target_sequences=joint"),
}
EVERY_RUN = {
    f"{masker.name}-{batching}-{sequences}-{residency}": (
        FINE,
        f"masker={masker.name}",
        f"context_batching={batching}",
        f"predictor.target_sequences={sequences}",
        f"data.residency={residency}",
        *(CLIPPED if residency == "streaming" else ()),
    )
    for masker, batching, sequences, residency in itertools.product(
        MASKERS, ("prefix", "subset", "pad"), ("separate", "joint"), ("resident", "streaming")
    )
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Overrides: images that are read from files by a worker process."""
    root = write_photos(tmp_path_factory.mktemp("photos"))
    data = f"{{dataset: image_folder, root: {root}, image_size: 8, validation_fraction: 0.25}}"
    return f"data={data}", "data.residency=streaming", "data.num_workers=1", "training.batch_size=10"


@pytest.fixture(scope="module")
def together(photos: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a run of each of `RUNS`, and one of photos, trained by two processes."""
    folder = tmp_path_factory.mktemp("together")
    torchrun(folder, {name: (*SHORT, *overrides) for name, overrides in {**RUNS, "photos": photos}.items()})
    return folder


def only_run(folder: Path) -> RunFolder:
    (path,) = folder.iterdir()
    return RunFolder.open(path)


def assert_equal_to_rounding(folder: RunFolder, whole: RunFolder) -> None:
    """Every row of metrics and every final weight, within 1e-5; rounding of small eigenvalues shows in an exponent."""
    for (step, first), (other_step, second) in zip(timeless_rows(folder), timeless_rows(whole), strict=True):
        assert step == other_step
        exponents = [metrics.pop("monitor/alpha_req", None) or 0.0 for metrics in (first, second)]
        assert exponents[0] == pytest.approx(exponents[1], rel=1e-3)
        assert first == pytest.approx(second, rel=1e-5, abs=1e-7)
    first_weights, second_weights = final_weights(folder), final_weights(whole)
    assert first_weights.keys() == second_weights.keys()
    for name, weight in second_weights.items():
        torch.testing.assert_close(first_weights[name], weight, rtol=1e-5, atol=1e-5 * float(weight.abs().max()))


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one_does(together: Path, tmp_path: Path, name: str) -> None:
    alone = start_run(load_tiny(tmp_path, *SHORT, *RUNS[name]), tmp_path / "runs", []).folder
    assert len([row for row in timeless_rows(alone) if "train/loss" in row[1]]) == 10
    assert_equal_to_rounding(only_run(together / name), alone)


def test_two_processes_that_read_files_train_as_one_does(
    together: Path, photos: tuple[str, ...], tmp_path: Path
) -> None:
    alone = start_run(load_tiny(tmp_path, *SHORT, *photos), tmp_path / "runs", []).folder
    assert_equal_to_rounding(only_run(together / "photos"), alone)


def test_the_run_folder_of_two_processes_is_that_of_one_run(together: Path) -> None:
    folder = only_run(together / "plain")
    result = folder.read_result()
    assert result is not None
    assert result["status"] == "FINISHED"
    assert "2 processes, each on cpu" in folder.read_environment()["device"]
    assert len(list((together / "plain").iterdir())) == 1
    assert folder.log.read_text().count("training from step 0") == 1


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_every_masker_batching_and_residency(tmp_path: Path) -> None:
    torchrun(tmp_path, {name: (*SHORT, *overrides) for name, overrides in EVERY_RUN.items()})
    for name, overrides in EVERY_RUN.items():
        alone = start_run(load_tiny(tmp_path, *SHORT, *overrides), tmp_path / "alone" / name, []).folder
        assert_equal_to_rounding(only_run(tmp_path / name), alone)


def faulty_teams(folder: Path, *cases: str) -> dict[str, Any]:
    """Exit codes and output by rank of each case of `team_faults`."""
    command = [sys.executable, "-m", "tests.integration.team_faults", str(folder), *cases]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def errors_in(said: str) -> list[str]:
    """The lines that tell an error, without those that tell what goes on."""
    return [line for line in said.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("faults")
    return folder, faulty_teams(folder, "data", "sigterm", "killed", "skipped")


def test_a_refusal_of_any_process_ends_all_and_is_told_once(faults: tuple[Path, dict[str, Any]]) -> None:
    folder, report = faults
    assert report["data"]["codes"] == [2, 2]
    assert errors_in(report["data"]["said"][0]) == ["error: process 1: the follower's disk is empty; fill it"]
    assert report["data"]["said"][1] == ""
    assert not (folder / "data" / "runs").exists()


def test_a_signal_to_any_process_stops_all_at_the_same_step_and_one_process_can_go_on(
    faults: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, report = faults
    assert report["sigterm"]["codes"] == [143, 143]
    (error,) = errors_in(report["sigterm"]["said"][0])
    assert error.startswith(
        "error: stopped by SIGTERM (the last checkpoint is at step 7); start the same torchrun command"
    )
    assert report["sigterm"]["said"][1] == ""
    stopped = only_run(folder / "sigterm" / "runs")
    assert CheckpointStore(stopped.checkpoints).steps()[-1] == 7
    resume_run(stopped, None, [])
    assert_equal_to_rounding(stopped, start_run(load_tiny(tmp_path), tmp_path / "runs", []).folder)


def test_the_death_of_a_process_ends_the_others_and_the_run_can_go_on(faults: tuple[Path, dict[str, Any]]) -> None:
    folder, report = faults
    assert report["killed"]["codes"] == [3, -9]
    assert "another of the 2 processes of this run has died" in report["killed"]["said"][0]
    stopped = only_run(folder / "killed" / "runs")
    result = stopped.read_result()
    assert result is not None
    assert result["status"] == "FAILED"
    assert resume_run(stopped, None, []).result["status"] == "FINISHED"


def test_a_batch_that_is_not_finite_in_one_process_is_skipped_by_all(faults: tuple[Path, dict[str, Any]]) -> None:
    folder, report = faults
    assert report["skipped"]["codes"] == [0, 0], report["skipped"]["said"]
    assert report["skipped"]["said"][1] == ""
    finished = only_run(folder / "skipped" / "runs")
    result = finished.read_result()
    assert result is not None
    assert result["metrics"]["skipped_steps"] == 1
    assert all(tensor.isfinite().all() for tensor in final_weights(finished).values())


@pytest.mark.slow
def test_every_other_fault_ends_both_processes_with_one_message(tmp_path: Path) -> None:
    report = faulty_teams(
        tmp_path, "batch", "disk", "images", "not_finite", "evaluation", "bug", "memory", "leader_killed"
    )
    told_by_the_leader = {
        "batch": (2, "training.batch_size must be a multiple of 2, got 25"),
        "disk": (3, "the leader's disk is full"),
        "images": (3, "the follower's file is gone"),
        "not_finite": (3, "loss or gradients were not finite at step 2"),
        "evaluation": (130, "stopped by SIGINT (the last checkpoint is at step 5)"),
    }
    for case, (code, message) in told_by_the_leader.items():
        assert report[case]["codes"] == [code, code], case
        assert report[case]["said"][0].count(message) == 1, case
        assert report[case]["said"][1] == "", case
    assert report["bug"]["codes"] == [1, 1]
    assert "process 1 of 2 crashed: ZeroDivisionError" in report["bug"]["said"][0]
    assert "Traceback" in report["bug"]["said"][1]
    assert report["memory"]["codes"] == [3, 3]
    assert "out of memory" in report["memory"]["said"][1]
    assert report["leader_killed"]["codes"] == [-9, 3]
