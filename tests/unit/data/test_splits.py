import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.splits import channel_statistics, limit_images, split_validation, stratified_sample
from jepa_lab.errors import ConfigError, DataError
from jepa_lab.testing.randomness import global_generators


def numbered(labels: list[int] | np.ndarray | None, count: int | None = None) -> ImageSplit:
    """Images whose single pixel pair is their own number."""
    total = len(labels) if labels is not None else count
    assert total is not None
    number = torch.arange(total)
    images = torch.stack([number % 256, number // 256], dim=1).to(torch.uint8)[:, :, None, None]
    return ImageSplit(images, None if labels is None else torch.tensor(labels, dtype=torch.int64))


def numbers(split: ImageSplit) -> list[int]:
    return (split.images[:, 0, 0, 0].long() + 256 * split.images[:, 1, 0, 0].long()).tolist()


def unbalanced(seed: int, classes: int = 7, size: int = 900) -> np.ndarray:
    random = np.random.RandomState(seed)
    share = random.dirichlet(np.ones(classes))
    return np.concatenate([random.choice(classes, size, p=share), np.arange(classes), np.arange(classes)])


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.37, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_the_parts_divide_the_images_and_keep_their_labels_and_order(fraction: float, seed: int) -> None:
    labels = unbalanced(seed)
    split = numbered(labels)
    training, validation = split_validation(split, fraction, seed)
    assert sorted(numbers(training) + numbers(validation)) == list(range(len(split)))
    assert len(validation) == round(fraction * len(split))
    for part in (training, validation):
        assert part.labels is not None
        assert part.labels.tolist() == labels[numbers(part)].tolist()
        assert numbers(part) == sorted(numbers(part))


@pytest.mark.parametrize("seed", range(5))
def test_class_counts_are_those_of_sklearns_stratified_split(seed: int) -> None:
    labels = unbalanced(seed, classes=5)
    _, validation = split_validation(numbered(labels), 0.2, seed)
    assert validation.labels is not None
    shuffle = StratifiedShuffleSplit(n_splits=1, test_size=len(validation), random_state=seed)
    _, theirs = next(shuffle.split(np.zeros(len(labels)), labels))
    ours, expected = np.bincount(validation.labels, minlength=5), np.bincount(labels[theirs], minlength=5)
    assert np.abs(ours - expected).max() <= 1
    assert np.abs(ours - 0.2 * np.bincount(labels)).max() <= 1


def test_every_class_stays_in_both_parts_however_small() -> None:
    labels = [0] * 500 + [1] * 2 + [2] * 3
    for fraction in (0.01, 0.1, 0.5, 0.99):
        for part in split_validation(numbered(labels), fraction, seed=0):
            assert part.labels is not None
            assert part.labels.unique().tolist() == [0, 1, 2]


def test_a_class_of_one_image_is_refused_by_name_count_and_remedy() -> None:
    split = numbered([0, 0, 0, 1, 2, 2])
    with pytest.raises(DataError, match=r"class 'dog' has 1 training image.*validation_fraction=0.5.*add images"):
        split_validation(split, 0.5, 0, class_names=("cat", "dog", "bird"))
    with pytest.raises(DataError, match="class '1' has 1 training image"):
        split_validation(split, 0.5, 0)


def test_images_without_labels_are_divided_at_random() -> None:
    training, validation = split_validation(numbered(None, 1000), 0.3, seed=4)
    assert validation.labels is None
    assert len(validation) == 300
    assert sorted(numbers(training) + numbers(validation)) == list(range(1000))
    assert abs(np.mean(numbers(validation)) - 499.5) < 4 * 289 * (0.7 / 300) ** 0.5
    with pytest.raises(DataError, match="at least 2 training images, got 1"):
        split_validation(numbered(None, 1), 0.3, seed=4)


@pytest.mark.parametrize("labels", [list(range(4)) * 50, None])
def test_a_division_depends_on_its_seed_alone(labels: list[int] | None) -> None:
    split = numbered(labels, 200)
    before = global_generators()
    first = numbers(split_validation(split, 0.2, seed=1)[1])
    torch.rand(3, generator=torch.Generator())
    assert numbers(split_validation(split, 0.2, seed=1)[1]) == first
    assert numbers(split_validation(split, 0.2, seed=2)[1]) != first
    assert numbers(split_validation(split, 0.2, seed=2**70)[1]) != first
    assert global_generators() == before


def test_the_draws_are_pinned_so_that_no_version_changes_a_split() -> None:
    labels = torch.arange(30) % 3
    assert stratified_sample(labels, 6, seed=0, keep_one=True).tolist() == [3, 13, 14, 18, 22, 26]


def test_limiting_keeps_proportions_and_order() -> None:
    split = numbered([0] * 600 + [1] * 300 + [2] * 100)
    limited = limit_images(split, 50, seed=0)
    assert limited.labels is not None
    assert torch.bincount(limited.labels).tolist() == [30, 15, 5]
    assert numbers(limited) == sorted(numbers(limited))
    assert len(limit_images(numbered(None, 40), 7, seed=0)) == 7


def test_limiting_keeps_every_class_and_refuses_to_lose_one() -> None:
    split = numbered([0] * 95 + [1, 2, 3, 4, 5])
    limited = limit_images(split, 6, seed=0)
    assert limited.labels is not None
    assert limited.labels.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match=r"max_images must be at least the number of classes \(6\).*got 5"):
        limit_images(split, 5, seed=0)


def test_a_limit_above_the_number_of_images_changes_nothing() -> None:
    split = numbered([0, 0, 1, 1])
    assert limit_images(split, 4, seed=0) is split
    assert limit_images(split, 400, seed=0) is split


def test_channel_statistics_are_those_of_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (50, 3, 9, 11), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, 1] //= 4
    monkeypatch.setattr("jepa_lab.data.splits.STATISTICS_CHUNK_PIXELS", 1000)  # several chunks, the last smaller
    mean, std = channel_statistics(images)
    pixels = images.double() / 255
    assert mean.dtype == std.dtype == torch.float32
    torch.testing.assert_close(mean.double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(std.double(), pixels.std((0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_a_constant_channel_is_refused_with_its_number_and_value() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4)).to(torch.uint8)
    images[:, 2] = 77
    with pytest.raises(DataError, match=r"channel 2 .* value 77 everywhere"):
        channel_statistics(images)
