"""Batches of labelled images to fit on, wherever the images are held."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import HeldPictures, HostPixels, LazyImages, Pictures
from jepa_lab.data.workers import Workers
from jepa_lab.probes.training_images import TrainingImages
from jepa_lab.testing.subjects import labelled_images, make_subject

FIRST, SECOND = labelled_images(20, 2, seed=1), labelled_images(7, 2, seed=2)


def lazy(split: ImageSplit) -> ImageSplit:
    assert isinstance(split.images, Tensor)
    return ImageSplit(LazyImages(HostPixels(split.images), Workers(0), torch.arange(len(split))), split.labels)


def held(split: ImageSplit) -> ImageSplit:
    assert isinstance(split.images, Tensor)
    sizes = torch.full((len(split), 2), split.images.shape[-1], dtype=torch.int32)
    return ImageSplit(HeldPictures(Pictures(split.images, sizes)), split.labels)


def first_batches(splits: list[ImageSplit], count: int, augmentation: Any = None) -> list[tuple[Tensor, Tensor]]:
    images = TrainingImages(splits, 9, augmentation, make_subject(None), "test")
    batches = [images.next() for _ in range(count)]
    images.close()
    return batches


def test_an_epoch_over_two_splits_has_every_image_once_with_its_number() -> None:
    both = torch.cat([FIRST.images, SECOND.images]).float() / 255  # type: ignore[list-item]
    batches = first_batches([FIRST, SECOND], 3)
    assert sorted(torch.cat([numbers for _, numbers in batches]).tolist()) == list(range(27))
    for images, numbers in batches:
        assert torch.equal(images, both[numbers])
    again = torch.cat([numbers for _, numbers in first_batches([FIRST, SECOND], 6)])
    assert again[:27].tolist() == torch.cat([numbers for _, numbers in batches]).tolist()
    assert again[27:].tolist() != again[:27].tolist(), "another order in the second epoch"


@pytest.mark.parametrize("augmentation", [None, Minimal(Minimal.Params(), 8)], ids=["squares", "crops"])
@pytest.mark.parametrize("others", [(lazy, lazy), (held, held), (lazy, held)], ids=["read", "held", "both"])
def test_it_does_not_matter_where_images_are_held(others: Any, augmentation: Minimal | None) -> None:
    elsewhere = [move(split) for move, split in zip(others, (FIRST, SECOND), strict=True)]
    expected = first_batches([FIRST, SECOND], 7, augmentation)
    for (images, numbers), (same, as_many) in zip(expected, first_batches(elsewhere, 7, augmentation), strict=True):
        assert torch.equal(numbers, as_many)
        assert torch.equal(images, same)


def test_a_batch_is_at_most_all_images() -> None:
    images = TrainingImages([SECOND], 100, None, make_subject(None), "test")
    assert (images.steps_per_epoch, len(images.next()[0])) == (1, 7)
