"""What probes find on raw pixels is measured once; a kept outcome that could be another one is never used."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jepa_lab.probes.kept
from jepa_lab.probes.base import Probe, ProbeOutcome, Score
from jepa_lab.probes.kept import KeptOutcomes
from jepa_lab.probes.knn import Knn
from jepa_lab.probes.linear_sgd import LinearSgd
from jepa_lab.probes.logistic import Logistic
from jepa_lab.probes.low_shot import LowShot
from jepa_lab.probes.predictions import Predictions
from jepa_lab.tracking.records import read_record, write_record

KEPT = KeptOutcomes({"digest": "abc", "split_seed": 0}, {"device": "cpu (1 thread)"}, seed=0)
KNN = Knn(Knn.Params(neighbors=3))
PREDICTED = {
    "": Predictions(np.array([2, 0, 300]), np.array([[1, 0], [1, 1]])),
    "k": Predictions(np.array([0, 0, 1]), None),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raw-pixels"


class Measuring:
    """Counts how often it is asked, and finds something else every time."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> ProbeOutcome:
        self.times += 1
        score = Score(1 / 3, self.times / 7, validation_interval=None, test_interval=(0.1, 1 / 7))
        scores = (score, Score(0.5, None, "k", "l", is_for_a_choice=True))
        return ProbeOutcome(scores, {"c": (1, 2.5)}, ("a note",), "C=1", PREDICTED)


@pytest.fixture
def measuring() -> Measuring:
    return Measuring()


def test_the_second_run_finds_what_the_first_one_measured_to_the_last_bit(measuring: Measuring) -> None:
    first, second = (KEPT.of("knn", KNN, measuring) for _ in range(2))
    assert measuring.times == 1
    assert first == second
    assert first.scores == Measuring()().scores
    assert (first.notes, first.choice) == (("a note",), "C=1")
    assert first.predictions == second.predictions == PREDICTED
    assert json.dumps(first.to_dict()) == json.dumps(Measuring()().to_dict())


@pytest.mark.parametrize(
    ("kept", "name", "probe"),
    [
        (replace(KEPT, images={**KEPT.images, "digest": "abd"}), "knn", KNN),
        (replace(KEPT, images={**KEPT.images, "split_seed": 1}), "knn", KNN),
        (replace(KEPT, conditions={"device": "NVIDIA H200"}), "knn", KNN),
        (KEPT, "knn", Knn(Knn.Params(neighbors=4))),
        (KEPT, "knn", Knn(Knn.Params(neighbors=3, vote="equal"))),
        (KEPT, "knn2", KNN),
    ],
    ids=["images", "splits", "device", "parameters", "vote", "probe"],
)
def test_nothing_that_an_outcome_depends_on_may_differ(
    measuring: Measuring, kept: KeptOutcomes, name: str, probe: Probe
) -> None:
    KEPT.of("knn", KNN, measuring)
    assert kept.of(name, probe, measuring).scores[0].test == 2 / 7


@pytest.mark.parametrize("changed", ["version", "package", "code"])
def test_another_version_measures_again(measuring: Measuring, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    KEPT.of("knn", KNN, measuring)
    module = jepa_lab.probes.kept
    if changed == "version":
        monkeypatch.setattr(module, "__version__", "99")
    elif changed == "package":
        version = module.metadata.version
        monkeypatch.setattr(module.metadata, "version", lambda name: "9.9" if name == "scikit-learn" else version(name))
    else:
        monkeypatch.setattr(module, "_code", lambda: "other code")
    KEPT.of("knn", KNN, measuring)
    assert measuring.times == 2


def test_only_a_probe_that_draws_depends_on_the_seed(measuring: Measuring) -> None:
    other = replace(KEPT, seed=1)
    for probe in (Logistic(Logistic.Params()), KNN, LowShot(LowShot.Params())):
        assert KEPT.key("x", probe) == other.key("x", probe)
    drawing = LinearSgd(LinearSgd.Params())
    assert KEPT.key("x", drawing) != other.key("x", drawing)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def another_digit(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"0.14285", b"0.94285"))


def of_other_images(file: Path) -> None:
    content = {"scores": [], "details": {}, "notes": [], "choice": "", "predictions": {}}
    write_record(file, "raw pixels", 3, content | {"key": KEPT.key("knn", Knn(Knn.Params(neighbors=9)))})


def of_a_newer_version(file: Path) -> None:
    write_record(file, "raw pixels", 4, {"key": KEPT.key("knn", KNN), "better": True})


def without_scores(file: Path) -> None:
    content = {"details": {}, "notes": [], "choice": "", "predictions": {}}
    write_record(file, "raw pixels", 3, {"key": KEPT.key("knn", KNN), **content})


def of_the_version_before_predictions(file: Path) -> None:
    content = {"scores": [], "details": {}, "notes": [], "choice": ""}
    write_record(file, "raw pixels", 2, {"key": KEPT.key("knn", KNN), **content})


def with_unreadable_predictions(file: Path) -> None:
    content = read_record(file, "raw pixels", 3)
    content["predictions"][""]["validation"]["shape"] = [2]
    write_record(file, "raw pixels", 3, content)


def of_the_version_before_choices(file: Path) -> None:
    content = {"key": KEPT.key("knn", KNN), "scores": [], "details": {}, "notes": []}
    write_record(file, "raw pixels", 1, content)


@pytest.mark.parametrize(
    "damage",
    [
        empty,
        cut,
        another_digit,
        of_other_images,
        of_a_newer_version,
        without_scores,
        of_the_version_before_choices,
        of_the_version_before_predictions,
        with_unreadable_predictions,
    ],
    ids=lambda f: f.__name__,
)
def test_a_damaged_entry_is_measured_again_and_replaced(
    measuring: Measuring, folder: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    KEPT.of("knn", KNN, measuring)
    [file] = folder.glob("*.json")
    damage(file)
    assert KEPT.of("knn", KNN, measuring).scores[0].test == 2 / 7
    assert "measured again" in caplog.text
    assert KEPT.of("knn", KNN, measuring).scores[0].test == 2 / 7


class Foreign(Knn):
    """A plug-in's probe: its code can change without anything that could be asked."""


def test_a_probe_of_a_plug_in_is_always_measured(measuring: Measuring, folder: Path) -> None:
    for _ in range(2):
        KEPT.of("foreign", Foreign(Knn.Params()), measuring)
    assert measuring.times == 2
    assert not folder.exists()


def test_a_folder_that_cannot_be_used_costs_only_time(
    measuring: Measuring, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert KEPT.of("knn", KNN, measuring).scores[0].test == 1 / 7
    assert "cannot be kept for other runs: cannot write" in caplog.text


def test_a_full_disk_costs_only_time(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jepa_lab.tracking.atomic.os.fsync", full)
    assert KEPT.of("knn", KNN, measuring).scores[0].test == 1 / 7
    assert "cannot be kept for other runs: no space left" in caplog.text


def test_an_error_of_the_probe_is_not_taken_for_one_of_the_folder(measuring: Measuring, folder: Path) -> None:
    def fail() -> ProbeOutcome:
        raise jepa_lab.probes.kept.RunStopped("no space left to write features")

    with pytest.raises(jepa_lab.probes.kept.RunStopped, match="features"):
        KEPT.of("knn", KNN, fail)
    assert not list(folder.glob("*.json"))
    assert KEPT.of("knn", KNN, measuring).scores[0].test == 1 / 7


def _measure_in_turn(cache: str, log: str, ready: Any) -> None:
    os.environ["JEPA_LAB_CACHE"] = cache

    def measure() -> ProbeOutcome:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        return ProbeOutcome((Score(0.5, float(os.getpid() % 97) / 97),), {})

    ready.wait()
    found = KEPT.of("knn", KNN, measure)
    with open(f"{log}.{os.getpid()}", "w") as file:
        file.write(json.dumps(found.to_dict()))


def test_processes_that_come_at_once_measure_once_and_find_the_same(tmp_path: Path, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, log = context.Barrier(3), tmp_path / "log"
    processes = [context.Process(target=_measure_in_turn, args=(str(folder.parent), str(log), ready)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert len(log.read_text().splitlines()) == 1
    found = {Path(f"{log}.{process.pid}").read_text() for process in processes}
    assert len(found) == 1
