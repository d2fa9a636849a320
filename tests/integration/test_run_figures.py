"""Figures and report of a run: what is there, what they show, and that they never cost a run its result."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import jepa_lab.composition.figures as figures_module
from jepa_lab.composition.outcome import Membership, RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.errors import JepaLabError, RunStopped
from jepa_lab.figures.runs.spectrum import Spectrum
from jepa_lab.interruption import StopRequested
from jepa_lab.monitors.spectra import Spectra
from jepa_lab.reports.run_report import write_run_report
from jepa_lab.resume import resume_run
from jepa_lab.run_figures import DrawnFigures
from jepa_lab.tracking.records import write_record
from jepa_lab.tracking.run_folder import RESULT_VERSION, RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import load_tiny, write_tiny
from tests.integration.runs import killed_run
from tests.integration.test_cli import invoke, refused

SHORT = ("training.epochs=1", "probe.method.c_grid=[0.1]", "probe.additional=[]", "monitors.end=[]")
AFTER_A_RUN = {
    "confusion", "feature_map", "knn_confusion", "learning_curves", "masks", "neighbours", "patch_components",
    "spectrum",
}  # fmt: skip


pytestmark = pytest.mark.painted


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    folder = tmp_path_factory.mktemp("pictured")
    return start_run(load_tiny(folder), folder / "runs", ["jepa-lab", "run", "tiny.yaml"])


def drawn(folder: RunFolder) -> set[str]:
    return {file.stem for file in folder.figures.iterdir()}


def result_of(folder: RunFolder) -> dict[str, Any]:
    result = folder.read_result()
    assert result is not None
    return result


def test_a_run_draws_its_figures_and_says_so_in_its_result(finished: RunOutcome) -> None:
    assert drawn(finished.folder) == AFTER_A_RUN
    assert finished.figures_error is None
    assert (finished.folder.figures / "confusion.png").stat().st_size > 10_000
    assert set(finished.result["figures"]["drawn"]) == AFTER_A_RUN
    assert finished.result["figures"]["failed"] == {}
    assert finished.result["seconds"]["figures"] > 0


def test_the_report_of_a_run_is_one_page_that_needs_nothing_else(finished: RunOutcome, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(finished.folder.path, tmp_path / "elsewhere")))
    shutil.rmtree(folder.figures)
    output = invoke("report", folder.path).output
    page = folder.path / "report" / "report.html"
    assert f"wrote {page}" in output
    assert "left out: umap" in output
    assert drawn(folder) == AFTER_A_RUN
    text = page.read_text()
    assert text.count("<figure>") == len(AFTER_A_RUN)
    assert len(re.findall("prefers-color-scheme: dark", text)) > len(AFTER_A_RUN)
    links = set(re.findall(r"(?:src|href|srcset)=\"(.)[^\"]{4}", text))
    assert links == {"d", "#"}, "data and anchors alone"
    for words in (
        "160 test images",
        "control: random encoder",
        "multi_block",
        "rankme_<wbr>end",
        "jepa-lab run tiny.yaml",
        "The figure &#x27;umap&#x27; is left out: it needs the package umap-learn",
    ):
        assert words in text, words


def test_a_page_says_first_that_training_has_brought_nothing(
    finished: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_lab.reports.run_report.collect_drawings", lambda *_, **__: DrawnFigures())
    for accuracy, is_said in ((0.0, True), (1.0, False)):
        folder = RunFolder(Path(shutil.copytree(finished.folder.path, tmp_path / str(accuracy))))
        result = result_of(folder)
        for outcome in result["probe"]["trained"].values():
            outcome["scores"][0]["validation_accuracy"] = accuracy
        write_record(folder.result, "result", RESULT_VERSION, result)
        text = write_run_report(folder).files[-1].read_text()
        paragraphs = re.findall(r"<p[^>]*>(.*?)</p>", text)
        assert paragraphs[0].startswith("NOT BETTER THAN RANDOM") == is_said
        assert text.count("NOT BETTER THAN RANDOM") == is_said


def test_a_report_is_given_as_json_or_as_its_path(finished: RunOutcome) -> None:
    shown = json.loads(invoke("report", finished.folder.path, "--json").stdout)
    assert set(shown["drawn"]) == AFTER_A_RUN
    assert Path(shown["files"][-1]).is_file()
    assert "umap" in shown["left_out"]


def test_a_wrong_folder_is_told_by_what_it_lacks(finished: RunOutcome, tmp_path: Path) -> None:
    assert "no run or sweep folder" in refused("report", tmp_path / "nothing")
    assert "is not a run folder" in refused("report", tmp_path)
    assert "--storage is of a sweep" in refused("report", finished.folder.path, "--storage", "sqlite:///x.db")


def test_spectra_survive_a_kill_and_begin_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: RunOutcome
) -> None:
    def spectra(folder: RunFolder) -> Spectra:
        return Spectra.of(CheckpointStore(folder.checkpoints).load().run.monitor)

    whole = spectra(finished.folder)
    assert whole.first is not None
    assert whole.last is not None
    assert whole.first != whole.last
    assert whole.num_images == 40
    folder = killed_run(tmp_path, monkeypatch, 11)
    resume_run(folder, None, [])
    assert spectra(folder) == whole


def test_a_run_that_an_earlier_version_began_shows_no_spectrum_of_its_start() -> None:
    old = Spectra.of({"collapsed": False})
    later = old.then(torch.tensor([3.0, 1.0]), 40)
    assert later.first is None
    assert later.last == (3.0, 1.0)


def test_a_trial_of_a_sweep_draws_nothing_and_its_report_draws_everything(tmp_path: Path) -> None:
    member = Membership({}, {})
    outcome = start_run(load_tiny(tmp_path, *SHORT), tmp_path / "runs", [], member)
    assert drawn(outcome.folder) == set()
    assert "figures" not in outcome.result
    assert invoke("report", outcome.folder.path).exit_code == 0
    assert drawn(outcome.folder) == AFTER_A_RUN - {"knn_confusion"}


def test_without_a_look_at_the_test_split_figures_show_validation_images(tmp_path: Path) -> None:
    outcome = start_run(load_tiny(tmp_path, *SHORT, "probe.score_test=false"), tmp_path / "runs", [])
    invoke("report", outcome.folder.path)
    text = (outcome.folder.path / "report" / "report.html").read_text()
    assert "40 validation images" in text
    assert "test images" not in text


def test_a_figure_that_fails_costs_neither_the_result_nor_another_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no such spectrum")

    monkeypatch.setattr(Spectrum, "drawings", fail)
    output = refused("run", write_tiny(tmp_path), *SHORT, "--runs", tmp_path / "runs", code=1)
    assert "control: random encoder" in output
    assert "spectrum (ZeroDivisionError: no such spectrum)" in output
    assert "has finished and its result is complete" in output
    (path,) = (tmp_path / "runs").iterdir()
    folder = RunFolder.open(path)
    result = result_of(folder)
    assert result["status"] == "FINISHED"
    assert result["figures"]["failed"] == {"spectrum": "ZeroDivisionError: no such spectrum"}
    assert drawn(folder) == AFTER_A_RUN - {"knn_confusion", "spectrum"}
    assert "Traceback" in folder.log.read_text()


def test_a_full_disk_while_figures_are_drawn_leaves_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RunStopped("the disk is full")

    monkeypatch.setattr(figures_module, "look_at_run", full)
    outcome = start_run(load_tiny(tmp_path, *SHORT), tmp_path / "runs", [])
    assert isinstance(outcome.figures_error, RunStopped)
    assert "all (the disk is full)" in str(outcome.figures_error)
    assert outcome.result["status"] == "FINISHED"


def test_ctrl_c_while_figures_are_drawn_leaves_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise StopRequested(2)

    monkeypatch.setattr(figures_module, "look_at_run", interrupt)
    with pytest.raises(JepaLabError, match="while figures were drawn; the run has finished"):
        start_run(load_tiny(tmp_path, *SHORT), tmp_path / "runs", [])
    (path,) = (tmp_path / "runs").iterdir()
    assert result_of(RunFolder.open(path))["status"] == "FINISHED"
