"""Moderate and strong: minimal, then colours, then blur and solarisation."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from jepa_lab.data.augmentations.base import Augmentation
from jepa_lab.data.augmentations.blur import kernel_radius
from jepa_lab.data.augmentations.crop import crop_boxes
from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.augmentations.moderate import Moderate
from jepa_lab.data.augmentations.strong import Strong
from tests.unit.data.test_color_and_blur import reference_jitter

OFF = {"jitter_probability": 0.0, "blur_probability": 0.0, "solarize_probability": 0.0}
WHOLE = {"crop_scale": (1, 1), "crop_aspect_ratio": (1, 1), "flip_probability": 0.0}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def minimal(size: int, **settings: Any) -> Minimal:
    return Minimal(Minimal.Params(**settings), size)


def moderate(size: int, **settings: Any) -> Moderate:
    return Moderate(Moderate.Params(**settings), size)


def strong(size: int, **settings: Any) -> Strong:
    return Strong(Strong.Params(**settings), size)


def reference_moderate(image: Tensor, draws: list[Tensor], size: int) -> Tensor:
    crop, flip, amounts, order = draws
    size_in_file = torch.tensor([image.shape[1:]])
    (box,) = crop_boxes(crop[None], size_in_file, (0.3, 1.0), (3 / 4, 4 / 3))
    image = reference.resized_crop(image, *box.tolist(), size=[size, size], antialias=True)
    image = reference.horizontal_flip(image) if flip else image
    return reference_jitter(image, amounts.tolist(), order.tolist())


@pytest.mark.parametrize("channels", [1, 3])
def test_moderate_is_torchvisions_operations_one_image_at_a_time(channels: int) -> None:
    images, augmentation = torch.rand(40, channels, 20, 28, generator=seeded(0)), moderate(24)
    draws = augmentation.draw(40, seeded(1))
    for number, result in enumerate(augmentation.apply(images, None, draws)):
        expected = reference_moderate(images[number], [draw[number] for draw in draws], 24)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_strong_is_torchvisions_operations_one_image_at_a_time(channels: int) -> None:
    images, augmentation = torch.rand(40, channels, 20, 28, generator=seeded(0)), strong(48)
    draws = augmentation.draw(40, seeded(1))
    kernel = 2 * kernel_radius(48) + 1
    for number, result in enumerate(augmentation.apply(images, None, draws)):
        *first, is_blurred, sigma, is_solarized = (draw[number] for draw in draws)
        expected = reference_moderate(images[number], first, 48)
        if is_blurred:
            expected = reference.gaussian_blur(expected, [kernel, kernel], [float(sigma)] * 2)
        if is_solarized:
            expected = reference.solarize(expected, 0.5)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("build", [moderate, strong])
def test_with_every_probability_zero_nothing_is_left_but_minimal(build: Any) -> None:
    images = torch.rand(16, 3, 16, 16, generator=seeded(0))
    off = {name: value for name, value in OFF.items() if build is strong or name == "jitter_probability"}
    plain = minimal(16)(images, None, seeded(1))
    torch.testing.assert_close(build(16, **off)(images, None, seeded(1)), plain, atol=1e-6, rtol=0)
    assert not torch.allclose(build(16)(images, None, seeded(1)), plain, atol=1e-2)


def test_stronger_augmentations_see_the_crops_and_colours_of_the_weaker() -> None:
    """From one state of the generator: arms of an ablation of strength differ in what was added alone."""
    draws = [build(16).draw(8, seeded(0)) for build in (minimal, moderate, strong)]
    for weaker, stronger in pairwise(draws):
        assert all(torch.equal(a, b) for a, b in zip(weaker, stronger, strict=False))
        assert len(weaker) < len(stronger)


def changed(augmentation: Augmentation, images: Tensor) -> Tensor:
    """Which images the augmentation changes beyond rounding, [B] bool."""
    return ((augmentation(images, None, seeded(0)) - images).abs() > 1e-5).flatten(1).any(dim=1)


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_each_probability_is_the_share_of_the_images_that_change(name: str, probability: float) -> None:
    images = torch.rand(2000, 3, 4, 4, generator=seeded(1))
    share = changed(strong(4, **WHOLE, **{**OFF, name: probability}, blur_sigma=(1, 2)), images).double().mean()
    assert abs(float(share) - probability) <= 4 * (probability * (1 - probability) / 2000) ** 0.5 + 1e-9


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_a_strength_of_zero_switches_its_operation_off_and_the_others_stay_on(name: str) -> None:
    images = torch.rand(50, 3, 8, 8, generator=seeded(1))
    none = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    assert not changed(moderate(8, **WHOLE, jitter_probability=1.0, **none), images).any()
    assert changed(moderate(8, **WHOLE, jitter_probability=1.0, **{**none, name: 0.3}), images).all()


def test_blurs_are_within_the_asked_range_and_uniform() -> None:
    *_, sigma, _ = strong(8, blur_sigma=(0.5, 1.5)).draw(10_000, seeded(0))
    assert 0.5 <= sigma.min() < 0.501
    assert 1.499 < sigma.max() <= 1.5
    assert float(sigma.mean()) == pytest.approx(1.0, abs=0.012)
    assert float(sigma.std()) == pytest.approx(12**-0.5, abs=0.01)


def test_a_wider_blur_leaves_less_contrast() -> None:
    images = torch.rand(20, 1, 40, 40, generator=seeded(1))
    settings = {**OFF, **WHOLE, "blur_probability": 1.0}
    spreads = [float(strong(40, **settings, blur_sigma=(s, s))(images, None, seeded(0)).std()) for s in (0.1, 0.5, 1.0)]
    assert spreads[0] > 1.3 * spreads[1] > 1.3 * 1.3 * spreads[2]


@pytest.mark.parametrize("threshold", [0.2, 0.9])
def test_values_from_the_threshold_on_are_inverted(threshold: float) -> None:
    images = torch.rand(4, 1, 8, 8, generator=seeded(1))
    result = strong(8, **WHOLE, **{**OFF, "solarize_probability": 1.0}, solarize_threshold=threshold)(
        images, None, seeded(0)
    )
    torch.testing.assert_close(result, torch.where(images >= threshold, 1 - images, images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [(0.0, 1.0), (2.0, 1.0), (1.0, 1e6)])
def test_a_wrong_sigma_is_refused_with_rule_and_value(sigma: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"blur_sigma must satisfy 0.01 <= min <= max <= 100, got \("):
        Strong.Params(blur_sigma=sigma)


@pytest.mark.parametrize("build", [moderate, strong])
def test_a_wrong_crop_scale_is_refused_as_in_minimal(build: Any) -> None:
    with pytest.raises(ValidationError, match=r"crop_scale must satisfy"):
        build(8, crop_scale=(0.5, 0.3))


@pytest.mark.parametrize("build", [moderate, strong])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sizes", [None, torch.empty(4, 2, dtype=torch.int32, device="meta")], ids=["square", "any"])
def test_no_value_is_read_back_while_images_are_changed(
    build: Any, channels: int, sizes: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of the meta device have no values: a device would be waited for where this fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows no such device
    augmentation = build(16)
    draws = tuple(draw.to("meta") for draw in augmentation.draw(4, seeded(0)))
    assert augmentation.apply(torch.empty(4, channels, 16, 16, device="meta"), sizes, draws).shape == (
        4,
        channels,
        16,
        16,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("build", [moderate, strong])
def test_augmenting_on_the_device_never_waits_for_it_and_equals_the_cpu(build: Any) -> None:
    device = torch.device("cuda")
    images, augmentation = torch.rand(16, 3, 32, 32, device=device), build(32)
    generator = torch.Generator(device).manual_seed(0)
    sizes = torch.tensor([[32, 32], [17, 99]], dtype=torch.int32, device=device).repeat(8, 1)
    augmentation(images, sizes, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        draws = augmentation.draw(16, generator)
        result = augmentation.apply(images, sizes, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = augmentation.apply(images.cpu(), sizes.cpu(), tuple(draw.cpu() for draw in draws))
    torch.testing.assert_close(result.cpu(), expected, atol=1e-5, rtol=0)
