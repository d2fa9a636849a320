"""The file of predictions: what comes back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from jepa_lab.errors import RunFolderError
from jepa_lab.runs.predictions import (
    RunPredictions,
    ScoredImages,
    SplitImages,
    read_predictions,
    smallest_dtype,
    write_predictions,
)

IMAGES = SplitImages("dataset", "pixels", 32)
FOUND = RunPredictions(
    ("cat", "dog", "eel"),
    {"validation": IMAGES, "test": IMAGES},
    {
        "probe/validation_accuracy": "validation/trained/logistic",
        "probe/low_shot_5_validation_accuracy": "validation/trained/low_shot/5",
        "probe/test_accuracy": "test/trained/logistic",
    },
    {
        "validation/positions": np.array([3, 5, 300, 301]),
        "validation/labels": np.array([0, 1, 2, 1]),
        "validation/trained/logistic": np.array([0, 1, 1, 1]),
        "validation/trained/low_shot/5": np.array([[0, 0, 2, 1], [0, 1, 2, 2]]),
        "test/positions": np.array([0, 1]),
        "test/labels": np.array([2, 2]),
        "test/trained/logistic": np.array([0, 2]),
    },
)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    record = write_predictions(tmp_path / "predictions.safetensors", FOUND)
    found = read_predictions(tmp_path, record)
    assert (found.class_names, found.images, found.metrics) == (FOUND.class_names, FOUND.images, FOUND.metrics)
    assert all(np.array_equal(found.tensors[name], each) for name, each in FOUND.tensors.items())
    assert {each.dtype.name for name, each in found.tensors.items() if name != "validation/positions"} == {"uint8"}


def scored(metric: str) -> ScoredImages:
    found = FOUND.scored(metric)
    assert found is not None
    return found


def test_an_accuracy_is_told_image_by_image() -> None:
    found = scored("probe/validation_accuracy")
    assert (found.positions.tolist(), found.labels.tolist()) == ([3, 5, 300, 301], [0, 1, 2, 1])
    assert found.correct.tolist() == [1, 1, 0, 1]
    assert scored("probe/low_shot_5_validation_accuracy").correct.tolist() == [1, 0.5, 1, 0.5]
    assert scored("probe/test_accuracy").correct.tolist() == [0, 1]
    assert FOUND.scored("final_loss") is None


def test_the_same_predictions_are_the_same_bytes(tmp_path: Path) -> None:
    backwards = replace(
        FOUND, tensors=dict(reversed(FOUND.tensors.items())), metrics=dict(reversed(FOUND.metrics.items()))
    )
    records = [write_predictions(tmp_path / "a", FOUND), write_predictions(tmp_path / "b", backwards)]
    assert records[0]["sha256"] == records[1]["sha256"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_anyone_with_safetensors_can_read_it(tmp_path: Path) -> None:
    write_predictions(tmp_path / "a", FOUND)
    with safe_open(tmp_path / "a", "numpy") as file:
        assert set(file.keys()) == set(FOUND.tensors)
        assert json.loads(file.metadata()["jepa_lab"])["class_names"] == ["cat", "dog", "eel"]


@pytest.mark.parametrize(("largest", "dtype"), [(9, "uint8"), (255, "uint8"), (256, "int16"), (40_000, "int32")])
def test_integers_are_as_small_as_they_can_be(largest: int, dtype: str) -> None:
    assert smallest_dtype(np.array([0, largest])) == dtype


def test_a_file_that_is_not_the_one_that_was_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    record = write_predictions(path, FOUND)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunFolderError, match="is damaged: its SHA-256"):
        read_predictions(tmp_path, record)
    path.unlink()
    with pytest.raises(RunFolderError, match="is missing"):
        read_predictions(tmp_path, record)


def test_a_file_of_something_else_or_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    import hashlib

    for metadata, message in (
        (None, "not a file of predictions"),
        ({"jepa_lab": '{"format_version": 9}'}, "version 9"),
    ):
        save_file({"x": np.zeros(2)}, tmp_path / "a", metadata)
        record = {"file": "a", "sha256": hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()}
        with pytest.raises(RunFolderError, match=message):
            read_predictions(tmp_path, record)


def test_images_are_the_same_pictures_at_another_size_and_not_after_a_change_at_the_same() -> None:
    found = scored("probe/validation_accuracy")
    assert found.are_those_of(found)
    assert found.are_those_of(replace(found, images=replace(IMAGES, content="resized", image_size=64)))
    assert not found.are_those_of(replace(found, images=replace(IMAGES, content="changed")))
    assert not found.are_those_of(replace(found, images=replace(IMAGES, dataset="another")))
    assert not found.are_those_of(replace(found, positions=found.positions + 1))
    assert not found.are_those_of(replace(found, labels=found.labels[::-1]))
