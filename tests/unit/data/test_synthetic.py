import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from sklearn.neighbors import KNeighborsClassifier

from jepa_lab.data.base import ImageData
from jepa_lab.data.datasets.synthetic import Synthetic
from jepa_lab.data.images import to_tensor
from jepa_lab.data.outlines import OUTLINES


def load(image_size: int = 24, **settings: Any) -> ImageData:
    return Synthetic(Synthetic.Params.model_validate(settings), None, image_size).load()


def test_sizes_and_classes_are_those_asked_for() -> None:
    data = load(image_size=20, num_train=30, num_test=12, num_classes=6)
    assert data.test is not None
    assert data.train.labels is not None
    assert data.train.images.shape == (30, 3, 20, 20)
    assert data.test.images.shape == (12, 3, 20, 20)
    assert data.class_names == ("disc", "square", "triangle", "cross", "ring", "diamond")
    assert torch.bincount(data.train.labels).tolist() == [5] * 6


def test_the_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    first = load(num_train=8, num_test=8)
    assert torch.equal(load(num_train=8, num_test=8).train.images, first.train.images)
    assert not torch.equal(load(num_train=8, num_test=8, seed=1).train.images, first.train.images)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_training_and_test_images_differ(seed: int) -> None:
    data = load(num_train=64, num_test=64, seed=seed)
    assert data.test is not None
    assert not (data.train.images.flatten(1)[:, None] == data.test.images.flatten(1)).all(2).any()


def test_the_number_of_test_images_does_not_change_the_training_images() -> None:
    assert torch.equal(load(num_train=8, num_test=4).train.images, load(num_train=8, num_test=9).train.images)


def test_every_image_shows_a_whole_shape_on_a_plain_background() -> None:
    images = load(image_size=32, num_train=120, num_test=1, num_classes=6).train.images.int()
    background = images[:, :, :1, :1]
    is_shape = ((images - background).abs() > 2).any(1)  # [n, H, W]
    border = torch.ones(32, 32, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    covered = is_shape.flatten(1).float().mean(1)
    assert covered.min() > 0.015
    assert covered.max() < 0.5
    assert is_shape[:, border].float().mean() < 0.01
    strongest = (images - background).abs().amax((2, 3))  # [n, C]
    assert strongest.min() >= 0.29 * 255


def test_drawing_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(num_train=10, num_test=1).train.images
    monkeypatch.setattr("jepa_lab.data.datasets.synthetic.CHUNK_PIXELS", 24 * 24 * 3)
    assert torch.equal(load(num_train=10, num_test=1).train.images, whole)


def test_the_label_is_the_shape_and_not_its_place_or_colour() -> None:
    """Outlines that were centred and scaled tell the classes apart; the mean colour does not."""
    data = load(image_size=32, num_train=600, num_test=200)
    assert data.test is not None
    colours = [split.images.float().mean((2, 3)).numpy() for split in (data.train, data.test)]
    outlines = [_centred_outline(split.images).numpy() for split in (data.train, data.test)]
    labels = [split.labels.numpy() for split in (data.train, data.test) if split.labels is not None]
    by_colour = KNeighborsClassifier(5).fit(colours[0], labels[0]).score(colours[1], labels[1])
    by_outline = KNeighborsClassifier(5).fit(outlines[0], labels[0]).score(outlines[1], labels[1])
    assert by_colour < 0.4
    assert by_outline > 0.9


def _centred_outline(images: torch.Tensor) -> torch.Tensor:
    """Each shape cut out and resized to 12x12, [n, 144]."""
    result = []
    for image in images.int():
        inside = ((image - image[:, :1, :1]).abs() > 38).any(0)
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        cut = inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].float()
        result.append(torch.nn.functional.interpolate(cut[None, None], (12, 12), mode="bilinear").flatten())
    return torch.stack(result)


def test_the_defaults_draw_the_same_images_in_every_version() -> None:
    assert load().digest == "ed60cac86d7cfe7a3403806164fc8423"
    several = load(image_size=20, num_train=30, num_test=12, num_classes=6, seed=3)
    assert several.digest == "3639bb5f76585dbe77b48c8ecab82802"


ALL: dict[str, Any] = {
    "num_classes": 8,
    "shapes_per_side": 2,
    "radius": [0.3, 0.45],
    "max_rotation_degrees": 20,
    "texture": 0.2,
    "palette": "bright_on_dark",
}


def test_with_all_choices_the_same_seed_draws_the_same_images() -> None:
    first, again, other = (load(num_train=16, num_test=8, seed=seed, **ALL) for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest


@pytest.mark.parametrize("name", list(OUTLINES))
def test_the_farthest_point_of_a_shape_is_about_one_away(name: str) -> None:
    """`radius` means what it says, but for the corners of the square."""
    side = torch.linspace(-1.5, 1.5, 301)
    y, x = torch.meshgrid(side, side, indexing="ij")
    inside = OUTLINES[name](x, y) < 0
    distance = torch.hypot(x, y)[inside]
    assert distance.max() <= (1.21 if name == "square" else 1.05)
    assert distance.max() > 0.9


@pytest.mark.parametrize("name", list(OUTLINES))
def test_the_distance_from_an_outline_grows_by_about_one_per_unit(name: str) -> None:
    """Or the soft edge of the shape would be wider or narrower than a pixel."""
    side = torch.linspace(-1.2, 1.2, 481)
    y, x = torch.meshgrid(side, side, indexing="ij")
    distance = OUTLINES[name](x, y)
    slope = torch.hypot(*torch.gradient(distance, spacing=(side, side)))
    on_the_edge = distance.abs() < 0.02
    assert slope[on_the_edge].median() == pytest.approx(1, abs=0.05)


def test_shapes_are_turned_by_up_to_the_chosen_angle() -> None:
    """The second moments of a bar-like shape say how it lies: those of half discs."""
    settings: dict[str, Any] = {"num_train": 400, "num_test": 1, "num_classes": 8, "radius": [0.4, 0.4]}
    upright, turned = (_tilts(load(32, **settings, max_rotation_degrees=angle)) for angle in (0, 20))
    assert upright.abs().max() < 2
    assert 15 < turned.abs().max() < 22
    assert turned.min() < -10
    assert turned.max() > 10


def _tilts(data: ImageData) -> torch.Tensor:
    """Degrees between the longer axis of each half disc and the horizontal."""
    assert data.train.labels is not None
    images = to_tensor(data.train.images)[data.train.labels == 7].int()
    tilts = []
    for image in images:
        rows, columns = ((image - image[:, :1, :1]).abs() > 38).any(0).nonzero().double().T
        covariance = torch.cov(torch.stack([columns, rows]))
        tilts.append(math.degrees(0.5 * math.atan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])))
    return torch.tensor(tilts)


def test_the_texture_varies_the_background_alone_and_by_as_much_as_was_chosen() -> None:
    settings: dict[str, Any] = {"num_train": 60, "num_test": 1, "radius": [0.2, 0.3]}
    plain, textured = (to_tensor(load(32, **settings, texture=texture).train.images).int() for texture in (0, 0.2))
    difference = (textured - plain).abs()
    assert difference.max() <= 0.2 * 255 + 1
    assert difference.amax((1, 2, 3)).float().median() > 0.15 * 255
    is_shape = ((plain - plain[:, :, :1, :1]).abs() >= (0.29 * 255)).all(1, keepdim=True).expand_as(plain)
    assert difference[is_shape].float().mean() < 2  # soft edges alone


def test_the_stones_of_the_mosaic_are_plain_and_say_nothing_about_their_neighbours() -> None:
    images = to_tensor(load(32, num_train=200, num_test=1, radius=[0.1, 0.1], texture=0.2).train.images).double()
    corner = images[:, :, :8, :8]  # 2 x 2 stones; few shapes reach it
    stones = corner[:, :, 1::4, 1::4].flatten(2)  # [n, C, 4]
    assert (corner[:, :, 0::4, 0::4].flatten(2) == stones).double().mean() > 0.9
    ground = images.flatten(2).median(2).values[..., None]
    left, right = (stones - ground)[..., 0].flatten(), (stones - ground)[..., 1].flatten()
    assert abs(torch.corrcoef(torch.stack([left, right]))[0, 1]) < 0.2


def test_every_cell_has_a_whole_shape_and_all_are_of_the_class() -> None:
    settings: dict[str, Any] = {"num_train": 12, "num_test": 1, "num_classes": 3, "radius": [0.3, 0.35]}
    data = load(60, **settings, shapes_per_side=3)
    assert data.train.labels is not None
    images = to_tensor(data.train.images).int()
    covered = ((images - images[:, :, :1, :1]).abs() > 38).any(1)  # [n, H, W]
    cells = covered.reshape(12, 3, 20, 3, 20).transpose(2, 3)  # [n, row, column, h, w]
    assert cells.flatten(3).sum(3).min() > 20
    assert covered[:, ::20].float().mean() < 0.02  # soft edges
    assert covered[:, :, ::20].float().mean() < 0.02
    # The share of its bounding box that a shape fills is the class's: about 0.79, 1 and 0.5.
    for label, low, high in ((0, 0.7, 0.9), (1, 0.9, 1.01), (2, 0.4, 0.7)):
        for cell in cells[data.train.labels == label].flatten(0, 2):
            rows, columns = cell.any(1), cell.any(0)
            assert low < cell.sum() / (rows.sum() * columns.sum()) < high


def test_shapes_of_one_image_have_sizes_and_colours_of_their_own() -> None:
    images = to_tensor(load(40, num_train=30, num_test=1, num_classes=2, shapes_per_side=2).train.images).int()
    cells = images.reshape(30, 3, 2, 20, 2, 20).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [n, cell, C, h, w]
    ground = images[:, None, :, :1, :1]
    inside = ((cells - ground).abs() > 38).any(2)  # [n, cell, h, w]
    areas = inside.sum((2, 3)).float()
    assert (areas.std(1) / areas.mean(1)).median() > 0.1
    colours = (cells * inside[:, :, None]).sum((3, 4)) / areas[..., None]
    assert colours.std(1).median() > 20


def test_a_bright_shape_lies_on_a_dark_background() -> None:
    images = to_tensor(load(32, num_train=80, num_test=1, palette="bright_on_dark").train.images)
    darkest, brightest = images.amin((2, 3)), images.amax((2, 3))
    assert darkest.max() <= 0.4 * 255 + 1
    assert brightest.min() >= 0.6 * 255 - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": [0.4, 0.3]}, "radius must satisfy 0 < min <= max <= 0.5, got"),
        ({"radius": [0.3, 0.6]}, "radius must satisfy 0 < min <= max <= 0.5, got"),
        ({"num_classes": 6, "max_rotation_degrees": 30}, "max_rotation_degrees must be at most 20 where num_classes"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_with_a_rule(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Synthetic.Params.model_validate(settings)


def test_a_turned_square_is_fine_where_no_diamond_is_drawn() -> None:
    assert load(num_train=10, num_test=5, num_classes=5, max_rotation_degrees=180).num_classes == 5


@pytest.mark.parametrize(
    "settings", [{"num_classes": 1}, {"num_classes": 9}, {"num_train": 0}, {"seed": 2**31}, {"texture": 0.3}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Synthetic.Params.model_validate(settings)
