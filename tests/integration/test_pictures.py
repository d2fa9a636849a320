"""Runs on pictures of many shapes: the same wherever they are held, and what the options about them do."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_lab.build import prepare_data, prepare_probe_data
from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.data.centre_squares import CentreSquares, stored_pictures
from jepa_lab.data.images import HeldPictures, to_tensor
from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.inspection import inspect_pipeline
from jepa_lab.reprobe import probe_again
from jepa_lab.resume import resume_run
from jepa_lab.tracking.description import KIND, VERSION
from jepa_lab.tracking.records import write_record
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.folders import load_photos
from tests.integration.runs import assert_same_run, copy_of, final_weights
from tests.unit.data.files import write_image

SHAPES = [(30, 40), (40, 30), (12, 60), (1, 200), (25, 25), (90, 70)]
"""Heights and widths; the files of a class take turns."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("photos"), np.random.RandomState(0)
    for split, count in (("train", 24), ("test", 6)):
        for label, name in enumerate(("ant", "bee", "wasp")):
            for number in range(count):
                pixels = random.randint(0, 200, (*SHAPES[number % len(SHAPES)], 3))
                pixels[..., label] += 50
                write_image(root / split / name / f"{number:02d}.png", pixels)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "cache"))


def load(folder: Path, photos: Path, *overrides: str) -> LoadedPipeline:
    return load_photos(folder, photos, "augmentation=strong", "training.epochs=2", *overrides)


@pytest.fixture(scope="module")
def resident(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    folder = tmp_path_factory.mktemp("resident")
    return start_run(load(folder, photos, "data.residency=resident"), folder / "runs", ["run"])


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.residency=streaming", "data.num_workers=0"),
        ("data.residency=streaming", "data.num_workers=3"),
        ("data.residency=streaming", "data.num_workers=1", "data.cache=true"),
        ("data.residency=resident", "data.cache=true"),
    ],
    ids=" ".join,
)
def test_a_run_is_bitwise_the_same_wherever_its_pictures_are_held(
    resident: RunOutcome, photos: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    outcome = start_run(load(tmp_path, photos, *overrides), tmp_path / "runs", ["run"])
    assert_same_run(outcome.folder, resident.folder)
    assert outcome.result["probe"] == resident.result["probe"]


def test_pictures_are_stored_at_the_size_that_is_asked_for(photos: Path, tmp_path: Path) -> None:
    for overrides, side in (((), 12), (("data.resize=20",), 20)):
        loaded = load(tmp_path, photos, *overrides)
        data = prepare_data(loaded.pipeline)
        assert data.train.images.shape[2:] == (8, 8)
        pictures = stored_pictures(data.train.images)
        assert isinstance(pictures, HeldPictures)
        assert pictures.shape[2:] == (side, side)
        sizes = pictures.pictures.sizes
        assert sizes is not None
        assert {tuple(size) for size in sizes.tolist()} == set(SHAPES)
        found = inspect_pipeline(loaded)
        assert (found.stored_side, found.stored_bytes) == (side, found.images.training * 3 * side**2)


def test_a_store_smaller_than_the_crops_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.resize must be at least data\.image_size \(8\).* got 7"):
        load(tmp_path, photos, "data.resize=7")


def test_the_probe_sees_the_part_of_the_pictures_that_it_asks_for(photos: Path, tmp_path: Path) -> None:
    pipeline = load(tmp_path, photos, "probe.crop_fraction=0.5").pipeline
    data = prepare_data(pipeline)
    probe_data = prepare_probe_data(pipeline, data)
    for whole, part in ((data.train, probe_data.train), (data.validation, probe_data.validation)):
        assert isinstance(part.images, CentreSquares)
        assert part.images.fraction == 0.5
        assert part.images.shape == whole.images.shape
        assert stored_pictures(part.images) is stored_pictures(whole.images)
        assert not torch.equal(to_tensor(part.images), to_tensor(whole.images))
    again = prepare_probe_data(pipeline.model_copy(update={"probe": load(tmp_path, photos).pipeline.probe}), data)
    assert again is data


def test_a_run_can_be_probed_again_on_another_part_and_at_another_size(resident: RunOutcome, tmp_path: Path) -> None:
    folder = copy_of(resident, tmp_path)
    finetune = "probe.additional=[{name: finetune, epochs: 1}]"
    _, content = probe_again(
        folder, ["probe.crop_fraction=0.875", "probe.image_size=12", finetune], None, score_test=True
    )
    assert content["settings"]["crop_fraction"] == 0.875
    assert content["metrics"]["probe/finetune_test_accuracy"] is not None
    assert content["metrics"] != resident.result["metrics"]


def without_the_option(folder: RunFolder) -> None:
    """As a version without `data.resize` left its run."""
    config = folder.config.read_text()
    assert config.count("  resize: null\n") == 1
    folder.config.write_text(config.replace("  resize: null\n", ""))
    description = folder.read_description()
    assert description.dataset is not None
    params = {key: value for key, value in description.params.items() if key != "data.resize"}
    dataset = replace(description.dataset, digest="of squares")
    write_record(folder.description, KIND, VERSION, asdict(replace(description, params=params, dataset=dataset)))


def test_a_run_of_a_version_that_cut_pictures_is_not_resumed(resident: RunOutcome, tmp_path: Path) -> None:
    folder = copy_of(resident, tmp_path)
    folder.remove_result()
    without_the_option(folder)
    with pytest.raises(RunFolderError, match=r"earlier version of jepa-lab, which had no data\.resize .*start a new"):
        resume_run(folder, None, ["run"])


def test_a_run_of_a_version_that_cut_pictures_is_not_probed_on_whole_ones(resident: RunOutcome, tmp_path: Path) -> None:
    folder = copy_of(resident, tmp_path)
    without_the_option(folder)
    with pytest.raises(RunFolderError, match=r"cut to their centre squares by an earlier version .*use that version"):
        probe_again(folder, [], None)


def test_weights_do_not_depend_on_the_part_that_is_probed(resident: RunOutcome, photos: Path, tmp_path: Path) -> None:
    outcome = start_run(load(tmp_path, photos, "probe.crop_fraction=0.875"), tmp_path / "runs", ["run"])
    first, second = final_weights(resident.folder), final_weights(outcome.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
