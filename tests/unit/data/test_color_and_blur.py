"""Colour jitter, blur and solarisation, against torchvision's operations on one image at a time."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import ColorJitter
from torchvision.transforms.v2 import functional as reference

from jepa_lab.data.augmentations.blur import gaussian_blur, kernel_radius
from jepa_lab.data.augmentations.color import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    JitterStrength,
    jitter,
    sample_jitter,
    shift_hue,
)
from jepa_lab.data.augmentations.strong import solarize

REFERENCE = {
    BRIGHTNESS: reference.adjust_brightness,
    CONTRAST: reference.adjust_contrast,
    SATURATION: reference.adjust_saturation,
    HUE: reference.adjust_hue,
}
STRENGTH = JitterStrength(brightness=0.4, contrast=0.6, saturation=0.8, hue=0.2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(channels: int = 3) -> Tensor:
    """Noise, and what conversions between colour spaces stumble over: black, white, grey, pure and equal colours."""
    noise = torch.rand(40, channels, 12, 9, generator=seeded(1))
    coarse = torch.randint(0, 3, (10, channels, 12, 9), generator=seeded(2)) / 2
    flat = torch.stack([torch.full((channels, 12, 9), value) for value in (0.0, 1.0, 0.5, 1 / 3)])
    return torch.cat([noise, coarse, flat])


def reference_jitter(image: Tensor, amounts: list[float], order: list[int]) -> Tensor:
    for operation in order:
        image = REFERENCE[operation](image, amounts[operation])
    return image


def amounts_of(operation: int, values: Tensor) -> Tensor:
    """Amounts that change nothing but one operation, [B, 4]."""
    amounts = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(values), 1)
    amounts[:, operation] = values
    return amounts


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", REFERENCE, ids=["brightness", "contrast", "saturation", "hue"])
def test_each_operation_is_torchvisions(operation: int, channels: int) -> None:
    images = pictures(channels)
    values = torch.rand(len(images), generator=seeded(3)) * (1 if operation == HUE else 2)
    values = values - 0.5 if operation == HUE else values
    ours = jitter(images, amounts_of(operation, values), torch.arange(4).expand(len(images), 4))
    for image, value, result in zip(images, values.tolist(), ours, strict=True):
        torch.testing.assert_close(result, REFERENCE[operation](image, value), atol=1e-5, rtol=0)
    assert torch.equal(ours, images) == (channels == 1 and operation in (SATURATION, HUE))


@pytest.mark.parametrize("channels", [1, 3])
def test_operations_are_applied_in_each_images_own_order(channels: int) -> None:
    orders = torch.tensor(list(permutations(range(4))))  # [24, 4]
    images = pictures(channels)[:24]
    amounts, _ = sample_jitter(24, STRENGTH, 1.0, seeded(4))
    ours = jitter(images, amounts, orders)
    for image, row, order, result in zip(images, amounts.tolist(), orders.tolist(), ours, strict=True):
        torch.testing.assert_close(result, reference_jitter(image, row, order), atol=1e-5, rtol=0)
    assert not torch.allclose(ours, jitter(images, amounts, orders.flip(1)), atol=1e-3)


def test_images_of_other_channels_get_brightness_and_contrast_around_their_mean() -> None:
    images = torch.rand(6, 2, 8, 8, generator=seeded(0))
    amounts, order = sample_jitter(6, STRENGTH, 1.0, seeded(1))
    expected = []
    for image, row, operations in zip(images, amounts.tolist(), order.tolist(), strict=True):
        result = image
        for operation in operations:
            if operation == BRIGHTNESS:
                result = (result * row[BRIGHTNESS]).clamp(0, 1)
            if operation == CONTRAST:
                result = (result.mean() + (result - result.mean()) * row[CONTRAST]).clamp(0, 1)
        expected.append(result)
    torch.testing.assert_close(jitter(images, amounts, order), torch.stack(expected), atol=1e-5, rtol=0)


def test_a_hue_that_is_not_shifted_leaves_every_bit() -> None:
    images = pictures()
    shifted = shift_hue(images, torch.tensor([0.0, 0.25] * 27))
    assert torch.equal(shifted[::2], images[::2])
    assert not torch.equal(shifted[1::2], images[1::2])


def test_amounts_are_distributed_as_torchvisions() -> None:
    theirs = torch.tensor(reference_amounts(6000)).double()
    ours = sample_jitter(40_000, STRENGTH, 1.0, seeded(0))[0].double()
    for power in (1, 2, 3, 4):
        a, b = (theirs - theirs.mean(0)) ** power + theirs, (ours - theirs.mean(0)) ** power + ours
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() <= 4.5 * error).all(), power
    torch.testing.assert_close(ours.amin(0), theirs.amin(0), atol=0.002, rtol=0)
    torch.testing.assert_close(ours.amax(0), theirs.amax(0), atol=0.002, rtol=0)
    correlation = torch.corrcoef(ours.T) - torch.eye(4)
    assert correlation.abs().max() < 0.025


def reference_amounts(count: int) -> list[list[float]]:
    ranges = ((0.6, 1.4), (0.4, 1.6), (0.2, 1.8), (-0.2, 0.2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [[float(amount) for amount in ColorJitter.get_params(*ranges)[1:]] for _ in range(count)]


def test_every_order_is_equally_frequent_and_independent_of_the_amounts() -> None:
    amounts, order = sample_jitter(24_000, STRENGTH, 1.0, seeded(0))
    counts = Counter(map(tuple, order.tolist()))
    assert set(counts) == set(permutations(range(4)))
    assert all(abs(count - 1000) < 4.5 * 1000**0.5 for count in counts.values())
    both = torch.corrcoef(torch.cat([amounts, order.float()], dim=1).T)[:4, 4:]
    assert both.abs().max() < 0.03


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_given_share_of_images_is_jittered_and_the_others_are_left_alone(probability: float) -> None:
    amounts, order = sample_jitter(4000, STRENGTH, probability, seeded(0))
    left_alone = (amounts == torch.tensor([1.0, 1.0, 1.0, 0.0])).all(dim=1)
    share = 1 - left_alone.double().mean().item()
    assert abs(share - probability) <= 4 * (probability * (1 - probability) / 4000) ** 0.5
    images = torch.rand(4000, 3, 2, 2, generator=seeded(1))
    changed = (jitter(images, amounts, order) != images).flatten(1).any(dim=1)
    assert torch.equal(changed, ~left_alone)


def test_the_drawn_numbers_do_not_depend_on_strength_or_probability() -> None:
    """Arms that differ in one strength differ in nothing else."""
    weak, weak_order = sample_jitter(50, JitterStrength(0.2, 0.6, 0.8, 0.2), 1.0, seeded(0))
    strong, strong_order = sample_jitter(50, STRENGTH, 1.0, seeded(0))
    assert torch.equal(weak_order, strong_order)
    assert torch.equal(weak[:, 1:], strong[:, 1:])
    torch.testing.assert_close(2 * (weak[:, 0] - 1), strong[:, 0] - 1)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 45), (64, 64), (96, 130)])
def test_blur_is_torchvisions_for_every_image_of_the_batch(height: int, width: int) -> None:
    images = torch.rand(6, 3, height, width, generator=seeded(0))
    sigma = torch.tensor([0.1, 0.3, 0.7, 1.0, 1.5, 2.0])
    kernel = [2 * kernel_radius(width) + 1, 2 * kernel_radius(height) + 1]
    for image, value, result in zip(images, sigma.tolist(), gaussian_blur(images, sigma), strict=True):
        expected = reference.gaussian_blur(image, kernel_size=kernel, sigma=[value, value])
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_the_kernel_is_a_tenth_of_the_image_and_fits_into_any() -> None:
    assert [2 * kernel_radius(size) + 1 for size in (224, 96, 64, 32, 8, 2, 1)] == [23, 9, 7, 3, 3, 3, 1]
    for size in (1, 2):
        image = torch.rand(1, 1, size, size, generator=seeded(0))
        blurred = gaussian_blur(image, torch.tensor([2.0]))
        assert blurred.shape == image.shape
        assert image.min() - 1e-6 <= blurred.min() <= blurred.max() <= image.max() + 1e-6


def test_autocast_does_not_round_blurred_pixels() -> None:
    images, sigma = torch.rand(2, 3, 16, 16), torch.tensor([0.5, 1.5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = gaussian_blur(images, sigma)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, gaussian_blur(images, sigma))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_solarisation_is_torchvisions_and_of_the_marked_images_alone(threshold: float) -> None:
    images = pictures()
    marked = torch.arange(len(images)) % 2 == 0
    ours = solarize(images, marked, threshold)
    assert torch.equal(ours[~marked], images[~marked])
    for image, result in zip(images[marked], ours[marked], strict=True):
        torch.testing.assert_close(result, reference.solarize(image, threshold), atol=1e-6, rtol=0)
