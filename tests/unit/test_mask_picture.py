"""The images of `jepa-lab masks`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import jepa_lab.data.image_files as image_files_module
from jepa_lab.build import build_dataset
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.centre_squares import centre_squares
from jepa_lab.data.images import Images, to_tensor
from jepa_lab.errors import DataError
from jepa_lab.inspection import inspect_pipeline
from jepa_lab.mask_picture import _some_images
from jepa_lab.randomness import build_generator
from tests.integration.folders import load_photos, write_photos


def prepare_images(pipeline: Pipeline) -> Images:
    """The training images of a folder of 10 x 12 pixels, stored at that longer side."""
    whole = build_dataset(pipeline.data, 12).load().train.images
    return centre_squares(whole, pipeline.data.image_size, 1.0, torch.device("cpu"))


def test_eight_images_of_a_folder_are_shown_and_no_others_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_photos(tmp_path, write_photos(tmp_path / "photos"), "seed=3").pipeline
    whole = to_tensor(prepare_images(pipeline))
    chosen = torch.randperm(72, generator=build_generator(3, "picture"))[:8]
    decoded = []
    decode = image_files_module.decode_picture

    def note(path: Path, side: int) -> tuple[torch.Tensor, tuple[int, int]]:
        decoded.append(path)
        return decode(path, side)

    monkeypatch.setattr(image_files_module, "decode_picture", note)
    # One at a time or all at once: a value on the edge may be rounded up or down.
    assert (_some_images(pipeline).int() - whole[chosen].int()).abs().max() <= 1
    assert len(decoded) == 8


def test_bad_files_among_them_are_an_error_or_skipped(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos")
    files = sorted((root / "train").rglob("*.png"))
    for file in files[::2]:
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be decoded"):
        _some_images(load_photos(tmp_path, root).pipeline)
    skipping = load_photos(tmp_path, root, "data.on_bad_image=skip").pipeline
    assert len(_some_images(skipping)) == 8
    for file in files[1::2]:
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image of .* can be decoded"):
        _some_images(skipping)


def test_checking_a_folder_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files_module, "decode_picture", None)
    loaded = load_photos(tmp_path, write_photos(tmp_path / "photos"), "data.residency=streaming", "data.cache=true")
    assert inspect_pipeline(loaded).images.training == 54
