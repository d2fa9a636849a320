import pytest
import torch
from pydantic import ValidationError
from sklearn.neighbors import KNeighborsClassifier

from jepa_lab.data.base import ImageData
from jepa_lab.data.datasets.synthetic import Synthetic


def load(image_size: int = 24, **settings: int) -> ImageData:
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


@pytest.mark.parametrize("settings", [{"num_classes": 1}, {"num_classes": 7}, {"num_train": 0}, {"seed": 2**31}])
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Synthetic.Params.model_validate(settings)
