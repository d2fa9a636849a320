"""What one look at all files finds, against the images themselves."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_lab.data.base import ImageFiles, ImageFileSet
from jepa_lab.data.datasets.image_folder import ImageFolder
from jepa_lab.data.image_files import file_pixels, load_files
from jepa_lab.data.splits import channel_histogram
from jepa_lab.data.survey import (
    Survey,
    fingerprint_of,
    load_surveys,
    save_surveys,
    survey_files,
    without_skipped,
)
from jepa_lab.data.workers import Workers
from jepa_lab.errors import DataError
from jepa_lab.registry import ComponentParams
from jepa_lab.tracking.records import read_record, write_record
from tests.unit.data.files import write_image, write_tree


def tree(root: Path) -> ImageFileSet:
    return ImageFolder(ComponentParams(), root, 6).image_files()


@pytest.mark.parametrize("native_size", [None, 5])
@pytest.mark.parametrize("splits", [{"train": 40}, {"train": 40, "test": 3}], ids=str)
def test_digest_and_channels_are_those_of_the_decoded_images(
    tmp_path: Path, splits: dict[str, int], native_size: int | None
) -> None:
    write_tree(tmp_path, splits, ["a", "b"])
    files = replace(tree(tmp_path), native_size=native_size)
    part = torch.arange(3, 77, 2)
    found = survey_files(files, 6, Workers(1), "error", lambda labels, count: part)
    decoded = load_files(files, 6)
    assert found.digest == decoded.digest
    assert torch.equal(torch.tensor(found.histogram), channel_histogram(decoded.train.images[part]))
    assert found.skipped == ()
    assert survey_files(files, 6, Workers(0), "error", None).histogram is None


def test_the_training_part_is_chosen_by_the_labels_that_are_left(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 4}, ["a", "b"])
    (tmp_path / "train/a/1.png").write_bytes(b"")
    asked = []

    def part(labels: torch.Tensor | None, count: int) -> torch.Tensor:
        assert labels is not None
        asked.append((labels.tolist(), count))
        return torch.arange(count)

    found = survey_files(tree(tmp_path), 6, Workers(0), "skip", part)
    assert asked == [([0] * 4 + [1] * 4, 8), ([0] * 3 + [1] * 4, 7)]
    assert [image.name for image in found.skipped] == ["train/a/1.png"]
    (tmp_path / "train/a/1.png").unlink()
    without = survey_files(tree(tmp_path), 6, Workers(0), "error", part)
    assert (found.digest, found.histogram) == (without.digest, without.histogram)
    assert found.fingerprint != without.fingerprint


def test_the_fingerprint_tells_every_change_and_opens_no_file(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 3, "test": 1}, ["a", "b"])
    file = tmp_path / "train/a/1.png"
    seen = {fingerprint_of(tree(tmp_path), 6)}

    def changed(files: ImageFileSet, size: int = 6) -> bool:
        before = len(seen)
        seen.add(fingerprint_of(files, size))
        return len(seen) == before + 1

    assert not changed(tree(tmp_path))
    assert changed(tree(tmp_path), size=7)
    assert changed(replace(tree(tmp_path), native_size=9))
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert changed(tree(tmp_path))
    file.write_bytes(b"more" + file.read_bytes())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert changed(tree(tmp_path))
    write_image(tmp_path / "train/b/9.png")
    assert changed(tree(tmp_path))
    (tmp_path / "train/b/0.png").rename(tmp_path / "train/b/8.png")
    assert changed(tree(tmp_path))
    for split in ("train", "test"):
        (tmp_path / split / "b").rename(tmp_path / split / "c")
    assert changed(tree(tmp_path))
    files = tree(tmp_path)
    assert changed(replace(files, train=ImageFiles(files.train.files, (0,) * len(files.train.files))))


def test_other_content_of_the_same_size_behind_the_same_date_changes_the_fingerprint(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 2}, ["a", "b"])
    file = tmp_path / "train/a/1.png"
    before, status, content = fingerprint_of(tree(tmp_path), 6), file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    while file.stat().st_ctime_ns == status.st_ctime_ns:  # its clock ticks every few milliseconds
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert fingerprint_of(tree(tmp_path), 6) != before


def test_a_folder_that_may_not_be_entered_only_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, {"train": 2}, ["a", "b"])
    files = tree(tmp_path)
    before = fingerprint_of(files, 6)

    def forbidden(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", forbidden)
    assert fingerprint_of(files, 6) != before


def test_a_moved_folder_keeps_its_fingerprint(tmp_path: Path) -> None:
    write_tree(tmp_path / "here", {"train": 2}, ["a", "b"])
    before = fingerprint_of(tree(tmp_path / "here"), 6)
    (tmp_path / "here").rename(tmp_path / "there")
    assert fingerprint_of(tree(tmp_path / "there"), 6) == before


def test_surveys_are_kept_with_a_checksum(tmp_path: Path) -> None:
    write_tree(tmp_path / "images", {"train": 2}, ["a", "b"])
    (tmp_path / "images/train/a/1.png").write_bytes(b"")
    survey = survey_files(tree(tmp_path / "images"), 6, Workers(0), "skip", lambda labels, count: torch.arange(count))
    path = tmp_path / "data.json"
    assert load_surveys(path) == ({}, None)
    save_surveys(path, {})
    assert not path.exists()
    save_surveys(path, {"data": survey})
    assert load_surveys(path) == ({"data": survey}, None)
    record = json.loads(path.read_text())
    record["surveys"]["data"]["digest"] = "0" * 32
    path.write_text(json.dumps(record))
    surveys, note = load_surveys(path)
    assert surveys == {}
    assert note is not None
    assert str(path) in note
    assert isinstance(survey, Survey)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda content: content["surveys"]["data"].pop("digest"), "surveys.data.digest"),
        (lambda content: content["surveys"]["data"].update(skipped="none"), "surveys.data.skipped"),
        (lambda content: content["surveys"]["data"].update(histogram=[[1, 2]]), "surveys.data"),
        (lambda content: content.pop("surveys"), "surveys"),
        (lambda content: content.update(more=1), "more"),
    ],
)
def test_a_record_that_is_whole_but_none_of_ours_is_not_used(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], object], named: str
) -> None:
    write_tree(tmp_path / "images", {"train": 2}, ["a", "b"])
    survey = survey_files(tree(tmp_path / "images"), 6, Workers(0), "error", None)
    path = tmp_path / "data.json"
    save_surveys(path, {"data": survey})
    content = read_record(path, "data", 1)
    spoil(content)
    write_record(path, "data", 1, content)
    surveys, note = load_surveys(path)
    assert surveys == {}
    assert note is not None
    assert f"{path} is damaged" in note
    assert named in note
    assert "every image is looked at again" in note


def test_names_that_cannot_be_printed_are_escaped_and_stay_different(tmp_path: Path) -> None:
    names = ["x\nERROR root: y\x1b[31m.png", "x\\nERROR root: y\\x1b[31m.png", "\u202etxt.png", "\x85.png", "\\x85.png"]
    files = [tmp_path / name for name in names] + [tmp_path / os.fsdecode(b"\x85.png")]
    for file in files:
        file.write_bytes(b"no image")
    files.append(tmp_path / "good.png")
    write_image(files[-1])
    found = ImageFileSet(ImageFiles(tuple(files), None), None, (), "folder", root=tmp_path)
    survey = survey_files(found, 6, Workers(0), "skip", None)
    assert [image.name for image in survey.skipped] == [
        r"x\nERROR root: y\x1b[31m.png", r"x\\nERROR root: y\\x1b[31m.png", r"\u202etxt.png", r"\u0085.png",
        r"\\x85.png", r"\x85.png",
    ]  # fmt: skip
    assert all(image.problem.isprintable() for image in survey.skipped)
    assert without_skipped(found, survey.skipped[:1]).train.files == tuple(files[1:])
    with pytest.raises(DataError) as caught:
        survey_files(found, 6, Workers(0), "error", None)
    assert str(caught.value).isprintable()


def test_file_names_that_are_not_text_are_read(tmp_path: Path) -> None:
    good, bad = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9.png", b"bad\xff.png"))
    write_image(tmp_path / "plain.png", size=(6, 6), seed=1)
    (tmp_path / "plain.png").rename(good)
    bad.write_bytes(b"no image")
    files = ImageFileSet(ImageFiles((good, bad), None), None, (), "folder")
    block = file_pixels(files, 6).read(torch.tensor([0, 1]))
    assert (len(block.images), [image.place for image in block.bad]) == (1, [1])
    survey = survey_files(files, 6, Workers(0), "skip", None)
    assert survey.skipped[0].name == "bad\\xff.png"
    save_surveys(tmp_path / "data.json", {"data": survey})
    assert load_surveys(tmp_path / "data.json")[0] == {"data": survey}
    assert without_skipped(files, survey.skipped).train.files == (good,)
