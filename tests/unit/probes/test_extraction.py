"""How a frozen encoder is run: large batches on a GPU, and half precision where it changes next to nothing."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_lab.build import build_model, prepare_data
from jepa_lab.probes.extraction import frozen_autocast, images_at_once
from jepa_lab.probes.features import Autocast, extract_features
from jepa_lab.probes.subject import Subject
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.integration.pipelines import load_tiny
from tests.unit.probes.fakes import FakeEncoder

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])


def bf16() -> contextlib.AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


class AlmostConstant(FakeEncoder):
    """Half precision of features that share a mean of 1 and differ by `spread` of it."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = spread

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        features = 1 + self.spread * super().last_layers(images, num_layers)
        return features.bfloat16() if torch.is_autocast_enabled("cpu") else features


def chosen(encoder: FakeEncoder, half: Autocast | None) -> Autocast:
    return frozen_autocast(half, encoder, labelled_images(64, 2, seed=0).images, MEAN, STD, 1, CPU)


@pytest.mark.parametrize(
    ("device", "values", "expected"),
    [
        (CPU, 64 * 192, 512),
        (CPU, 256 * 1280, 512),
        (GPU, 64 * 192, 5461),  # CIFAR's encoder
        (GPU, 16 * 64, 8192),
        (GPU, 256 * 1280, 512),
        (GPU, 0, 8192),
    ],
)
def test_a_gpu_takes_as_many_images_at_once_as_keep_it_busy(device: torch.device, values: int, expected: int) -> None:
    assert images_at_once(None, device, values) == expected
    assert images_at_once(7, device, values) == 7


@pytest.mark.parametrize("position", ["sincos", "learned", "rope"])
def test_what_half_precision_changes_is_at_most_a_fiftieth_of_what_differs_between_images(
    tmp_path: Path, position: str
) -> None:
    size = "encoder.size={name: custom, embed_dim: 64, depth: 4, num_heads: 2}"
    pipeline = load_tiny(tmp_path, size, f"encoder.position={position}").pipeline
    data = prepare_data(pipeline)
    encoder = build_model(pipeline, 1).target_encoder
    autocast = frozen_autocast(bf16, encoder, data.train.images, data.mean, data.std, 1, CPU)
    arguments = (encoder, data.train.images, data.mean, data.std, 1, 50, CPU)
    full, found = extract_features(*arguments), extract_features(*arguments, autocast)
    assert full.dtype == found.dtype == torch.float32
    assert (found - full).std(dim=0).mean() <= 0.02 * full.std(dim=0).mean()
    # With fixed positions this untrained encoder's images hardly differ, so that rounding would show.
    assert torch.equal(full, found) == (position == "sincos")


def test_half_precision_is_used_only_where_images_differ_by_more_than_it_rounds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert chosen(AlmostConstant(0.5), bf16) is bf16
    with caplog.at_level(logging.INFO):
        assert chosen(AlmostConstant(1e-3), bf16) is contextlib.nullcontext
    assert "features are extracted in full precision: rounding to half would change them by" in caplog.text


def test_features_that_are_all_the_same_are_extracted_in_full_precision() -> None:
    assert chosen(AlmostConstant(0.0), bf16) is contextlib.nullcontext


def test_full_precision_is_not_tried_against_anything() -> None:
    encoder = FakeEncoder()
    assert chosen(encoder, None) is contextlib.nullcontext
    assert encoder.seen == 0


def test_every_probe_gets_features_in_the_precision_that_was_chosen_once() -> None:
    def subject(spread: float, half: Autocast | None) -> Subject:
        return make_subject(AlmostConstant(spread), half=half)

    full, half, refused = subject(0.5, None), subject(0.5, bf16), subject(1e-3, bf16)
    assert not torch.equal(half.features.train[0], full.features.train[0])
    images = make_splits().train.images
    for each in (full, half, refused):
        assert torch.equal(torch.cat(list(each.feature_batches(images))), each.features.train[0])
    assert torch.equal(refused.features.train[0], subject(1e-3, None).features.train[0])
    encoder = half.encoder
    assert isinstance(encoder, FakeEncoder)
    assert encoder.seen == 2 * 90 + 90 + 45 + 60 + 90, "twice for the choice, then every split, then the batches"
