"""The run folders of trials, found by their names: what a listing of the folder would find, without the listing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jepa_lab.resume import find_runs, run_stem
from jepa_lab.sweeps.trial_runs import TrialRuns
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import load_tiny

STEM = "tiny-00c0ffee-s0"


def make(root: Path) -> RunFolder:
    return RunFolder.create(root, "tiny", "00c0ffee", 0, "name: tiny\n")


def test_runs_that_are_made_after_the_listing_are_found(tmp_path: Path) -> None:
    runs = TrialRuns(tmp_path)
    assert runs.all_of(STEM) == []
    made = [make(tmp_path) for _ in range(3)]
    assert runs.all_of(STEM) == made
    assert runs.all_of("tiny-00c0ffee-s00") == []


def test_a_run_is_found_whose_elder_brothers_were_removed(tmp_path: Path) -> None:
    first, second, third = (make(tmp_path) for _ in range(3))
    for gone in (first, second):
        shutil.rmtree(gone.path)
    runs = TrialRuns(tmp_path)
    assert runs.all_of(STEM) == [third]
    again = make(tmp_path)
    assert again == first
    assert {each.path for each in runs.all_of(STEM)} == {again.path, third.path}


def test_a_folder_without_a_configuration_is_no_run_and_hides_none(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    first.config.unlink()
    assert TrialRuns(tmp_path).all_of(STEM) == [second]


def test_only_a_run_that_ended_well_is_finished(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    runs = TrialRuns(tmp_path)
    first.write_result("FAILED", {}, 1)
    assert runs.finished(STEM) is None
    second.write_result("FINISHED", {}, 1)
    assert runs.finished(STEM) == second


def test_it_finds_what_a_listing_finds_and_lists_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "trials"
    root.mkdir()
    runs = TrialRuns(root)
    pipelines = [load_tiny(tmp_path, f"seed={seed}").pipeline for seed in (0, 1, 10)]
    for pipeline, digest in ((each, run_stem(each).rsplit("-", 2)[1]) for each in pipelines[1:] * 2):
        RunFolder.create(root, pipeline.name, digest, pipeline.seed, "a: 1\n")
    listed = [find_runs(root, pipeline) for pipeline in pipelines]
    for name in ("iterdir", "glob", "rglob"):
        monkeypatch.setattr(Path, name, lambda *given: pytest.fail("the folder of all trials was listed"))
    assert [runs.all_of(run_stem(pipeline)) for pipeline in pipelines] == listed
