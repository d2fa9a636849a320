"""Whole runs on folders of images in the layouts that users have."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa_lab.build import PreparedData, prepare_data
from jepa_lab.composition.start import start_run
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import to_tensor
from jepa_lab.errors import ConfigError, DataError, RunFolderError
from jepa_lab.inspection import inspect_pipeline
from jepa_lab.mask_picture import draw_pipeline_masks
from jepa_lab.reprobe import probe_again
from jepa_lab.resume import resume_run
from jepa_lab.tracking import description
from jepa_lab.tracking.records import read_record, write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.pretrain import Pretraining
from tests.integration.folders import load_photos
from tests.integration.pipelines import load_tiny
from tests.integration.runs import Killed
from tests.unit.data.files import write_image

COMMAND = ["test"]
SHORT = ("training.epochs=1",)


def write_class_folders(root: Path, *folders: str, count: int = 12) -> Path:
    """`root/<folder>/`, the classes told apart by their colour, which follows the name of the last folder."""
    random = np.random.RandomState(len(folders))
    for folder in folders:
        for number in range(count):
            pixels = random.randint(0, 230, (10, 12, 3))
            pixels[..., sum(Path(folder).name.encode()) % 3] += 20
            write_image(root / folder / f"{number:02d}.png", pixels)
    return root


@pytest.fixture(scope="module")
def albums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("albums"), "ant", "bee", "wasp")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validation folder, and a test folder without bees."""
    root = write_class_folders(tmp_path_factory.mktemp("splits"), "Train/ant", "Train/bee", "Train/wasp")
    return write_class_folders(root, "valid/ant", "valid/bee", "valid/wasp", "test/ant", "test/wasp", count=5)


def pictures(split: ImageSplit | None) -> set[bytes]:
    assert split is not None
    found = {image.numpy().tobytes() for image in to_tensor(split.images)}
    assert len(found) == len(split)
    return found


def prepared(folder: Path, root: Path, *overrides: str) -> PreparedData:
    return prepare_data(load_photos(folder, root, *overrides).pipeline)


def lines_about_images(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a run prints about its images, in its order."""
    heads = ("images: ", "probe images: ", "note on the images: ", "note on the probe images: ")
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(heads)]


READINGS = (
    ("data.residency=resident",),
    ("data.residency=streaming", "data.num_workers=1"),
    ("data.residency=streaming", "data.cache=true", "data.num_workers=0"),
)


@pytest.mark.parametrize("choice", ["data.test_fraction=0.25", "data.validation_split=folder", "data.labels=none"])
def test_splits_and_statistics_do_not_depend_on_how_images_are_read(
    splits: Path, albums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "cache"))
    root = albums if "test_fraction" in choice else splits
    first, *others = (prepared(tmp_path, root, choice, *reading) for reading in READINGS)
    parts = [pictures(part) for part in (first.train, first.validation, first.test) if part is not None]
    assert len(set.union(*parts)) == sum(map(len, parts)), "no image is in two splits"
    for other in others:
        assert (other.digest, other.counts) == (first.digest, first.counts)
        assert torch.equal(other.mean, first.mean)
        assert torch.equal(other.std, first.std)
        for name in ("train", "validation", "test"):
            one, two = getattr(first, name), getattr(other, name)
            assert (one is None) == (two is None)
            assert one is None or torch.equal(to_tensor(one.images), to_tensor(two.images))


def test_two_ways_to_understand_a_folder_have_two_entries_in_the_cache(
    albums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        for choice in ("auto", "none"):
            assert prepared(tmp_path, albums, "data.cache=true", f"data.labels={choice}").notes == ()
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 2


def test_a_chosen_validation_folder_is_all_of_the_validation_split(splits: Path, tmp_path: Path) -> None:
    usual = prepared(tmp_path, splits)
    assert usual.counts.sentence() == "27 training, 9 validation, 10 test"
    chosen = prepared(tmp_path, splits, "data.validation_split=folder")
    assert chosen.counts.sentence() == "36 training, 15 validation, 10 test"
    assert pictures(chosen.train) == pictures(usual.train) | pictures(usual.validation)
    assert chosen.digest != usual.digest


def test_class_folders_alone_are_trained_and_probed_on_and_said(
    albums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = start_run(load_photos(tmp_path, albums, *SHORT), tmp_path / "runs", COMMAND)
    lines = lines_about_images(capsys)
    assert lines[0] == "images: 22 training, 7 validation, 7 test"
    assert lines[1].startswith("note on the images: there is no train/: the 3 folders are the classes")
    assert lines[2].startswith("note on the images: there is no test split, so 20% of the images of each class (7 ")
    log = outcome.folder.log.read_text()
    assert all(line in log for line in lines[:3])
    images = outcome.result["images"]
    assert (images["training"], images["validation"], images["test"]) == (22, 7, 7)
    assert images["in_words"] == "22 training, 7 validation, 7 test"
    assert len(images["notes"]) == 2
    assert outcome.result["metrics"]["probe/test_accuracy"] is not None
    assert inspect_pipeline(load_photos(tmp_path, albums)).images.sentence() == images["in_words"]


def test_every_probe_takes_a_test_split_that_lacks_a_class(splits: Path, tmp_path: Path) -> None:
    probes = (
        "[knn, {name: low_shot, shots: [1, 2], draws: 2, c_grid: [1.0]}, {name: linear_sgd, epochs: 2}, "
        "{name: layerwise, c_grid: [1.0]}, {name: finetune, epochs: 1}]"
    )
    overrides = ("data.validation_split=folder", f"probe.additional={probes}", *SHORT)
    outcome = start_run(load_photos(tmp_path, splits, *overrides), tmp_path / "runs", COMMAND)
    (note,) = (note for note in outcome.result["images"]["notes"] if "no images of" in note)
    assert note == "the test split has no images of 1 of 3 classes, so its accuracy says nothing about them: bee"
    assert f"WARNING jepa_lab.composition.run: note on the images: {note}\n" in outcome.folder.log.read_text()
    found = outcome.result["probe"]["trained"]
    for probe in ("logistic", "linear_sgd", "finetune"):
        assert found[probe]["per_class_accuracy"]["bee"] is None
        assert found[probe]["per_class_accuracy"]["ant"] is not None
        assert [sum(row) for row in found[probe]["confusion"]] == [5, 0, 5]
    assert all(score["test_accuracy"] is not None for score in found["low_shot"]["scores"])
    assert (outcome.folder.figures / "confusion.png").is_file()


def test_a_labelled_run_can_do_without_a_test_split(
    albums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("data.test_fraction=0", *SHORT)
    outcome = start_run(load_photos(tmp_path, albums, *overrides), tmp_path / "runs", COMMAND)
    assert "images: 27 training, 9 validation, no test split" in capsys.readouterr().out
    assert outcome.result["images"]["test"] is None
    assert outcome.result["metrics"]["probe/test_accuracy"] is None
    assert outcome.result["metrics"]["probe/validation_accuracy"] is not None


def test_albums_are_trained_on_without_labels_and_probed_on_folders(
    splits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_class_folders(tmp_path / "albums", "2019/summer", "2019/winter/snow", "2020", count=8)
    own = f"probe.data={{dataset: image_folder, root: {splits}, validation_split: folder}}"
    outcome = start_run(load_photos(tmp_path, root, own, *SHORT), tmp_path / "runs", COMMAND)
    lines = lines_about_images(capsys)
    assert lines[0] == "images: 18 training, 6 validation, no test split"
    assert "probe images: 36 training, 15 validation, 10 test" in lines
    assert any(line.startswith("note on the probe images: the test split has no images of 1 of 3") for line in lines)
    assert outcome.result["probe_images"]["test"] == 10
    assert outcome.result["metrics"]["probe/test_accuracy"] is not None
    _, again = probe_again(outcome.folder, [f"probe.data={{dataset: image_folder, root: {splits}}}"], None)
    assert again["probe_images"]["in_words"] == "27 training, 9 validation, 10 test"
    assert any("; probe.data.validation_split=folder uses it" in note for note in again["probe_images"]["notes"])


def test_the_picture_of_masks_is_drawn_on_any_layout(albums: Path, tmp_path: Path) -> None:
    for choice in ("auto", "none"):
        out = tmp_path / f"{choice}.png"
        draw_pipeline_masks(load_photos(tmp_path, albums, f"data.labels={choice}"), out)
        assert out.stat().st_size > 0


@pytest.mark.parametrize("names", [(), ("train/a", "train/b", "val/a", "valid/a"), ("train/a", "train/b", "test/c")])
def test_every_command_blames_the_root_for_a_folder_that_does_not_fit(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write_class_folders(tmp_path / "photos", *names, count=4)
    root.mkdir(exist_ok=True)
    loaded = load_photos(tmp_path, tmp_path / "nowhere", f"data.root={root}", "data.dataset=image_folder")
    place = f"override 'data.root={root}': "
    for command in (
        lambda: inspect_pipeline(loaded),
        lambda: draw_pipeline_masks(loaded, tmp_path / "masks.png"),
        lambda: start_run(loaded, tmp_path / "runs", COMMAND),
    ):
        with pytest.raises(DataError) as caught:
            command()
        assert str(caught.value).startswith(place)


def killed_run_on(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> RunFolder:
    """A run that was killed after its first step."""
    take_step = Pretraining.after_step

    def kill(self: Pretraining, step: int, *arguments: Any) -> None:
        if step == 1:
            raise Killed
        take_step(self, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "after_step", kill)
        with pytest.raises(Killed):
            start_run(load_photos(folder, root, *overrides, *SHORT), folder / "runs", COMMAND)
    (path,) = (folder / "runs").iterdir()
    return RunFolder.open(path)


@pytest.mark.parametrize("reading", [("data.residency=resident",), ("data.residency=streaming", "data.num_workers=0")])
def test_a_run_whose_folders_were_changed_is_not_resumed(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: tuple[str, ...]
) -> None:
    root = tmp_path / "photos"
    shutil.copytree(splits, root)
    run = killed_run_on(tmp_path, root, monkeypatch, *reading)
    (root / "test").rename(root / "left")
    with pytest.raises(RunFolderError, match="have changed"):
        resume_run(run, None, COMMAND)
    (root / "left").rename(root / "test")
    (root / "valid").rename(root / "val")  # the same images in the same role
    assert resume_run(run, None, COMMAND).result["status"] == "FINISHED"


def test_images_that_an_older_run_was_trained_on_do_not_become_its_test_split(albums: Path, tmp_path: Path) -> None:
    outcome = start_run(load_photos(tmp_path, albums, "data.test_fraction=0", *SHORT), tmp_path / "runs", COMMAND)
    folder = outcome.folder
    content = folder.config.read_text()
    assert "  test_fraction: 0.0\n" in content
    folder.config.write_text(content.replace("  test_fraction: 0.0\n", ""))
    record = read_record(folder.description, description.KIND, description.VERSION)
    del record["params"]["data.test_fraction"]
    write_record(folder.description, description.KIND, description.VERSION, record)
    with pytest.raises(ConfigError, match="--score-test needs a labelled test split, and data has none; leave it out"):
        probe_again(folder, [], None, score_test=True)
    _, again = probe_again(folder, [], None)
    assert again["test_split"] is None
    assert again["images"]["in_words"] == outcome.result["images"]["in_words"]
    assert again["metrics"] == {name: outcome.result["metrics"][name] for name in again["metrics"]}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data.labels=none",), "data.labels must be auto for Digits"),
        (("data.validation_split=folder",), "data.validation_split must be fraction for Digits"),
        (("probe.data={dataset: digits, labels: folders}",), "probe.data.labels must be auto for Digits"),
    ],
)
def test_a_choice_about_folders_is_refused_where_there_are_none(
    tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", COMMAND)
