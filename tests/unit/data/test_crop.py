import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from jepa_lab.data.augmentations.crop import crop_and_resize, crop_boxes, draw_crops, in_stored_pixels


def sample_crops(
    count: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> torch.Tensor:
    """Boxes of as many pictures of one size, [count, 4]."""
    sizes = torch.tensor([[height, width]], device=generator.device).expand(count, 2)
    return crop_boxes(draw_crops(count, generator), sizes, scale, ratio)


def random_boxes(count: int, height: int, width: int, seed: int) -> torch.Tensor:
    random = np.random.RandomState(seed)
    heights, widths = random.randint(1, height + 1, count), random.randint(1, width + 1, count)
    tops = [random.randint(0, height - box + 1) for box in heights]
    lefts = [random.randint(0, width - box + 1) for box in widths]
    return torch.tensor(np.stack([tops, lefts, heights, widths], axis=1))


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (32, 32, 8), (20, 45, 16), (9, 7, 24)])
def test_cropping_equals_torchvision_for_every_image_of_the_batch(height: int, width: int, size: int) -> None:
    images = torch.rand(60, 3, height, width, generator=torch.Generator().manual_seed(1))
    boxes = random_boxes(60, height, width, seed=2)
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([height - 1, width - 1, 1, 1])
    ours = crop_and_resize(images, boxes, size)
    for image, box, crop in zip(images, boxes.tolist(), ours, strict=True):
        expected = reference.resized_crop(image, *box, size=[size, size], antialias=True)
        torch.testing.assert_close(crop, expected, atol=1e-5, rtol=0)


def test_a_whole_image_box_of_the_same_size_changes_nothing() -> None:
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(crop_and_resize(images, torch.tensor([[0, 0, 16, 16]] * 2), 16), images)


def test_flipped_images_are_the_mirrored_crops_and_the_others_stay() -> None:
    images = torch.rand(8, 1, 12, 18)
    boxes = random_boxes(8, 12, 18, seed=0)
    flip = torch.tensor([True, False] * 4)
    plain = crop_and_resize(images, boxes, 10)
    flipped = crop_and_resize(images, boxes, 10, flip)
    torch.testing.assert_close(flipped[flip], plain[flip].flip(3), atol=1e-6, rtol=0)
    assert torch.equal(flipped[~flip], plain[~flip])


def test_autocast_does_not_round_pixels() -> None:
    images, boxes = torch.rand(4, 3, 16, 16), random_boxes(4, 16, 16, seed=3)
    plain = crop_and_resize(images, boxes, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = crop_and_resize(images, boxes, 8)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, plain)


def reference_boxes(count: int, height: int, width: int, scale: list[float], ratio: list[float]) -> torch.Tensor:
    image = torch.empty(1, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(count)])


def moments(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What the distributions are compared by, [count, features]."""
    top, left, crop_height, crop_width = boxes.double().unbind(1)
    features = [
        crop_height * crop_width,
        (crop_width / crop_height).log(),
        crop_height,
        crop_width,
        top - (height - crop_height) / 2,
        left - (width - crop_width) / 2,
        top * left,
    ]
    first = torch.stack(features, dim=1)
    return torch.cat([first, first.square()], dim=1)


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, [0.3, 1.0], [3 / 4, 4 / 3]),
        (24, 40, [0.08, 1.0], [3 / 4, 4 / 3]),
        (224, 224, [0.2, 0.5], [0.5, 1.2]),
        (375, 500, [0.3, 1.0], [3 / 4, 4 / 3]),
        (640, 427, [0.08, 1.0], [3 / 4, 4 / 3]),
        (60, 200, [0.3, 1.0], [3 / 4, 4 / 3]),
        (16, 40, [0.8, 1.0], [0.9, 1.1]),
    ],
)
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: list[float], ratio: list[float]) -> None:
    """Of the wide picture most attempts fail; the last case never fits, and the centre is taken."""
    theirs = reference_boxes(10_000, height, width, scale, ratio)
    generator = torch.Generator().manual_seed(3)
    ours = sample_crops(40_000, height, width, (scale[0], scale[1]), (ratio[0], ratio[1]), generator)
    a, b = moments(theirs, height, width), moments(ours, height, width)
    standard_error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= 4 * standard_error + 1e-9).all(), (
        a.mean(0),
        b.mean(0),
        standard_error,
    )
    if height * width > 100_000:  # too many boxes for each to come up
        return
    for column in range(4):
        assert set(theirs[:, column].tolist()) <= set(ours[:, column].tolist())


def test_boxes_lie_inside_the_image_and_reach_every_border() -> None:
    boxes = sample_crops(20_000, 12, 9, (0.1, 1.0), (0.5, 2.0), torch.Generator().manual_seed(0))
    top, left, height, width = boxes.unbind(1)
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert top.min() == 0
    assert left.min() == 0
    assert (top + height).max() == 12
    assert (left + width).max() == 9


def test_a_ratio_that_never_fits_gives_the_largest_centred_box() -> None:
    boxes = sample_crops(5, 10, 40, (1.0, 1.0), (1.0, 2.0), torch.Generator().manual_seed(0))
    assert boxes.tolist() == [[0, 10, 10, 20]] * 5
    boxes = sample_crops(5, 40, 10, (1.0, 1.0), (0.5, 1.0), torch.Generator().manual_seed(0))
    assert boxes.tolist() == [[10, 0, 20, 10]] * 5


def test_images_of_a_batch_get_different_boxes_and_a_seed_repeats_them() -> None:
    draws = [sample_crops(64, 32, 32, (0.3, 1.0), (0.75, 1.33), torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])
    assert len(draws[0].unique(dim=0)) > 60


def test_pictures_of_a_batch_get_the_boxes_that_each_would_get_alone() -> None:
    sizes = torch.tensor([[375, 500], [500, 375], [1, 2000], [33, 33], [2000, 2]])
    draws = draw_crops(5, torch.Generator().manual_seed(0))
    together = crop_boxes(draws, sizes, (0.3, 1.0), (3 / 4, 4 / 3))
    for number in range(5):
        alone = crop_boxes(draws[number, None], sizes[number, None], (0.3, 1.0), (3 / 4, 4 / 3))
        assert torch.equal(alone[0], together[number])


@pytest.mark.parametrize(("height", "width"), [(1, 2000), (2000, 1), (1, 1), (2, 3), (4000, 100)])
@pytest.mark.parametrize("ratio", [[3 / 4, 4 / 3], [0.9, 1.1]])
def test_extreme_pictures_get_the_centre_that_torchvision_takes(height: int, width: int, ratio: list[float]) -> None:
    """Where no attempt can fit, the box is no matter of chance."""
    theirs = {tuple(box) for box in reference_boxes(300, height, width, [0.9, 1.0], ratio).tolist()}
    ours = sample_crops(300, height, width, (0.9, 1.0), (ratio[0], ratio[1]), torch.Generator().manual_seed(0))
    assert {tuple(box) for box in ours.tolist()} == theirs


def test_every_size_has_the_central_crop_of_torchvision() -> None:
    """The fall-back is computed in single precision; ties must round as there."""
    for ratio in ((3 / 4, 4 / 3), (0.9, 1.1), (1.2, 2.0), (0.3, 0.5)):
        sizes = torch.cartesian_prod(torch.arange(1, 90), torch.arange(1, 90))
        none_fits = torch.full((len(sizes), 22), 1 - 2**-24)
        none_fits[:, :10] = 1e9  # a share of the area that no picture has
        ours = crop_boxes(none_fits, sizes, (0.3, 1.0), ratio)[:, 2:]
        expected = [central_crop(height, width, ratio) for height, width in sizes.tolist()]
        assert torch.equal(ours, torch.tensor(expected))


def central_crop(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """As torchvision has it, in double precision; no side is shorter than a pixel."""
    if width / height < ratio[0]:
        return max(1, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, max(1, round(height * ratio[1]))
    return height, width


@pytest.mark.parametrize(("start", "length"), [(3.3, 0.1), (2.9999, 0.2), (0.0, 0.01), (6.5, 0.5), (1.25, 3.5)])
def test_a_box_with_fractions_of_a_pixel_shows_the_pixels_under_it(start: float, length: float) -> None:
    """On a ramp from 0 to 7 the result lies between the values of the first and the last pixel that the box touches."""
    ramp = torch.arange(7.0).expand(1, 1, 7, 7)
    box = torch.tensor([[0.0, start, 7.0, length]])
    result = crop_and_resize(ramp, box, 5)
    assert result.isfinite().all()
    assert result.min() >= int(start) - 1e-4
    assert result.max() <= min(6, int(start + length)) + 1e-4
    assert (result.diff(dim=3) >= -1e-4).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cropping_on_the_device_never_waits_for_it_and_equals_the_cpu() -> None:
    device = torch.device("cuda")
    images = torch.rand(16, 3, 32, 32, device=device)
    generator = torch.Generator(device).manual_seed(0)
    flip = torch.rand(16, generator=generator, device=device) < 0.5
    sizes = torch.tensor([[32, 32], [20, 300]], device=device).repeat(8, 1)
    crop_boxes(draw_crops(16, generator), sizes, (0.3, 1.0), (0.75, 1.33))
    torch.cuda.set_sync_debug_mode("error")
    try:
        chosen = crop_boxes(draw_crops(16, generator), sizes, (0.3, 1.0), (0.75, 1.33))
        boxes = in_stored_pixels(chosen, sizes, 32, 32)
        crops = crop_and_resize(images, boxes, 32, flip)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = crop_and_resize(images.cpu(), boxes.cpu(), 32, flip.cpu())
    torch.testing.assert_close(crops.cpu(), expected, atol=1e-5, rtol=0)
