"""Tests of feature extraction."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jepa_lab.errors import RunStopped
from jepa_lab.probes.features import extract_features, patch_features, raw_pixel_features, raw_pixel_tokens
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder

MEAN = torch.tensor([0.5, 0.4, 0.3])
STD = torch.tensor([0.2, 0.3, 0.4])
CPU = torch.device("cpu")


def by_hand(encoder: FakeEncoder, images: Tensor, num_layers: int) -> Tensor:
    """Patch features of all images at once, [n, N, D']."""
    normalised = (images.double() / 255 - MEAN.double().view(1, 3, 1, 1)) / STD.double().view(1, 3, 1, 1)
    with torch.no_grad():
        return encoder.eval().last_layers(normalised.float(), num_layers)


@pytest.mark.parametrize("num_layers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_features_are_the_average_of_the_patches_whatever_the_batch_size(num_layers: int, batch_size: int) -> None:
    images = labelled_images(20, 2, seed=0).images
    features = extract_features(FakeEncoder(), images, MEAN, STD, num_layers, batch_size, CPU)
    torch.testing.assert_close(features, by_hand(FakeEncoder(), images, num_layers).mean(dim=1))
    assert features.shape == (20, num_layers * 6)


def test_patch_features_are_the_last_block_of_every_patch() -> None:
    images = labelled_images(20, 2, seed=0).images
    features = patch_features(FakeEncoder(), images, MEAN, STD, 8, CPU)
    torch.testing.assert_close(features, by_hand(FakeEncoder(), images, 1))
    assert features.shape == (20, 4, 6)


def test_extraction_has_no_gradient_and_gives_every_module_its_mode_back() -> None:
    encoder = FakeEncoder().train()
    encoder.add_module("frozen", nn.Dropout().eval())
    features = extract_features(encoder, labelled_images(4, 2, seed=0).images, MEAN, STD, 1, 2, CPU)
    assert not features.requires_grad
    assert encoder.training
    assert encoder.dropout.training
    assert not encoder.get_submodule("frozen").training
    assert torch.is_grad_enabled()


def test_modes_are_given_back_when_the_encoder_fails() -> None:
    encoder = FakeEncoder().train()
    with pytest.raises(RuntimeError):
        extract_features(encoder, torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(1), torch.ones(1), 1, 2, CPU)
    assert encoder.training
    assert encoder.dropout.training


def test_every_image_is_encoded_once() -> None:
    encoder = FakeEncoder()
    extract_features(encoder, labelled_images(21, 3, seed=0).images, MEAN, STD, 4, 8, CPU)
    assert encoder.seen == 21


def test_forward_passes_run_in_the_given_context() -> None:
    entered = []

    @contextlib.contextmanager
    def autocast():  # type: ignore[no-untyped-def]
        entered.append(True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield

    images = labelled_images(6, 2, seed=0).images
    features = extract_features(FakeEncoder(), images, MEAN, STD, 1, 2, CPU, autocast)
    assert len(entered) == 3
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, by_hand(FakeEncoder(), images, 1).mean(dim=1), atol=0.05, rtol=0.05)
    assert not torch.equal(features, extract_features(FakeEncoder(), images, MEAN, STD, 1, 2, CPU))


def test_features_that_are_not_finite_stop_the_run() -> None:
    encoder = FakeEncoder()
    with torch.no_grad():
        encoder.weight[-1, 0, 0] = float("nan")
    with pytest.raises(RunStopped, match="features of 4 of 4 images are not finite"):
        extract_features(encoder, labelled_images(4, 2, seed=0).images, MEAN, STD, 1, 2, CPU)


def test_raw_pixels_of_small_images_are_the_pixels() -> None:
    images = labelled_images(5, 2, seed=0).images
    np.testing.assert_allclose(raw_pixel_features(images).numpy(), images.flatten(1).numpy() / 255, rtol=1e-6)


def test_raw_pixels_of_large_images_are_averages_of_blocks() -> None:
    images = labelled_images(3, 2, seed=0, side=96).images
    blocks = images.numpy().reshape(3, 3, 32, 3, 32, 3).mean(axis=(3, 5)) / 255
    np.testing.assert_allclose(raw_pixel_features(images).numpy(), blocks.reshape(3, -1), rtol=1e-5)


def test_only_the_side_that_is_too_long_is_pooled() -> None:
    assert raw_pixel_features(torch.zeros(2, 1, 64, 10, dtype=torch.uint8)).shape == (2, 320)


def test_tokens_of_raw_pixels_are_their_patches_with_row_and_column() -> None:
    images = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = raw_pixel_tokens(images)
    assert tokens.shape == (3, 16, 2 * 4 * 4 + 4 + 4)
    for number in range(16):
        row, column = divmod(number, 4)
        patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(tokens[:, number, :32], patch.flatten(1))
        assert tokens[0, number, 32:].nonzero().flatten().tolist() == [row, 4 + column]


@pytest.mark.parametrize(("side", "patches"), [(2, 1), (8, 4), (28, 49), (30, 49), (33, 64), (224, 64)])
def test_raw_pixels_of_any_size_have_at_most_64_tokens(side: int, patches: int) -> None:
    assert raw_pixel_tokens(torch.rand(1, 3, side, side)).shape[1] == patches


def test_tokens_average_to_the_features_and_leave_the_encoder_as_it_was() -> None:
    encoder, splits = FakeEncoder().train(), make_splits()
    subject = make_subject(encoder, splits)
    tokens = torch.cat(list(subject.token_batches(splits.train.images)))
    assert torch.allclose(tokens.mean(dim=1), subject.features.train[0], atol=1e-6)
    assert torch.allclose(subject.tokens_of(splits.train.images[:7].float() / 255), tokens[:7], atol=1e-6)  # type: ignore[index, union-attr]
    assert encoder.training
