import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.augmentations.none import NoAugmentation
from jepa_lab.registry import ComponentParams


def minimal(image_size: int, **settings: object) -> Minimal:
    return Minimal(Minimal.Params.model_validate(settings), image_size)


def test_no_augmentation_returns_images_of_the_right_size_untouched() -> None:
    images = torch.rand(3, 3, 16, 16)
    assert NoAugmentation(ComponentParams(), 16)(images, None, torch.Generator()) is images


def test_no_augmentation_resizes_other_images_without_a_draw() -> None:
    images, generator = torch.rand(3, 1, 24, 20), torch.Generator().manual_seed(0)
    before = generator.get_state()
    resized = NoAugmentation(ComponentParams(), 16)(images, None, generator)
    assert torch.equal(resized, F.interpolate(images, (16, 16), mode="bilinear", antialias=True))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_images_are_mirrored_with_the_given_probability(probability: float) -> None:
    """Full crops leave only the flip; a ramp shows which way an image looks."""
    ramp = torch.arange(8.0).expand(4000, 1, 8, 8) / 8
    augmentation = minimal(8, crop_scale=(1, 1), crop_aspect_ratio=(1, 1), flip_probability=probability)
    result = augmentation(ramp, None, torch.Generator().manual_seed(0))
    mirrored = result[:, 0, 0, 0] > result[:, 0, 0, -1]
    assert torch.equal(result[~mirrored], ramp[~mirrored])
    assert torch.equal(result[mirrored], ramp[mirrored].flip(3))
    error = 4 * (probability * (1 - probability) / 4000) ** 0.5
    assert abs(mirrored.double().mean().item() - probability) <= error


def test_the_crops_do_not_depend_on_the_flip_probability() -> None:
    """Arms that differ in the flip alone see the same crops."""
    images = torch.rand(16, 3, 16, 16)
    never = minimal(16, flip_probability=0)(images, None, torch.Generator().manual_seed(1))
    always = minimal(16, flip_probability=1)(images, None, torch.Generator().manual_seed(1))
    torch.testing.assert_close(always, never.flip(3), atol=1e-6, rtol=0)


def test_crops_are_within_the_scale_that_was_asked_for() -> None:
    """A linear ramp's range in the result tells the width of the crop."""
    ramp = (torch.arange(64.0) / 64).expand(500, 1, 64, 64)
    small = minimal(64, crop_scale=(0.25, 0.25), crop_aspect_ratio=(1, 1), flip_probability=0)
    result = small(ramp, None, torch.Generator().manual_seed(0))
    width = (result.amax(3) - result.amin(3)) * 64
    assert (width - 31).abs().max() < 1


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.3), (0.3, 1.2), (-0.1, 0.5)])
def test_a_wrong_crop_scale_is_refused_with_rule_and_value(scale: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"crop_scale must satisfy 0 < min <= max <= 1, got \("):
        Minimal.Params(crop_scale=scale)


@pytest.mark.parametrize("ratio", [(0.0, 1.0), (2.0, 1.0)])
def test_a_wrong_aspect_ratio_is_refused_with_rule_and_value(ratio: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"crop_aspect_ratio must satisfy 0 < min <= max, got \("):
        Minimal.Params(crop_aspect_ratio=ratio)
