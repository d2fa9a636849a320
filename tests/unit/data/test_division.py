"""What is cut from the training images, and what is told about it."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.data.base import ImageData, ImageSplit
from jepa_lab.data.division import Division, DivisionPlan, SplitCounts, divide, notes_on, numbers
from jepa_lab.data.splits import limit_images, split_validation
from jepa_lab.errors import DataError

NAMES = ("ant", "bee", "wasp")
LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
PLAN = DivisionPlan(test_fraction=0.2, validation_fraction=0.25, max_images=None, seed=0, test_seed=0)


def split_of(labels: torch.Tensor | None, first: int = 0, count: int | None = None) -> ImageSplit:
    total = count if labels is None else len(labels)
    assert total is not None
    return ImageSplit(numbers(total, None).images + first, labels)


def data_of(
    labels: torch.Tensor | None = LABELS, test: ImageSplit | None = None, validation: ImageSplit | None = None
) -> ImageData:
    names = () if labels is None else NAMES
    return ImageData(split_of(labels, count=100), test, names, "", "", validation=validation)


def found(split: ImageSplit | None) -> list[int]:
    assert split is not None
    assert isinstance(split.images, torch.Tensor)
    return split.images.flatten().tolist()


def counts(split: ImageSplit | None) -> list[int]:
    assert split is not None
    assert split.labels is not None
    return split.labels.bincount(minlength=len(NAMES)).tolist()


def told(division: Division, names: tuple[str, ...] = NAMES) -> list[str]:
    return [note.text("data") for note in notes_on(division, PLAN, names)]


def test_a_test_split_is_cut_by_class_where_there_is_none() -> None:
    division = divide(data_of(), PLAN)
    assert division.test_is_cut
    assert (counts(division.test), counts(division.validation)) == ([10, 6, 4], [10, 6, 4])
    parts = [found(split) for split in division.splits]
    assert sorted(number for part in parts for number in part) == list(range(100))
    assert all(part == sorted(part) for part in parts)


def test_another_validation_split_leaves_the_test_split_and_the_chosen_images_as_they_are() -> None:
    first, second = (divide(data_of(), DivisionPlan(0.2, 0.25, 20, seed, 0)) for seed in (0, 1))
    assert first.test is not None
    assert second.test is not None
    assert torch.equal(first.test.images, second.test.images)
    assert not torch.equal(first.validation.images, second.validation.images)
    pools = [torch.cat([each.train.images, each.validation.images]).flatten().sort().values for each in (first, second)]
    assert torch.equal(*pools)


def test_the_cut_follows_the_split_seed_alone() -> None:
    def cut(plan: DivisionPlan) -> list[int]:
        return found(divide(data_of(), plan).test)

    assert cut(PLAN) == cut(DivisionPlan(0.2, 0.5, None, 0, 0))
    assert cut(PLAN) != cut(DivisionPlan(0.2, 0.25, None, 1, 1))
    limited = divide(data_of(), DivisionPlan(0.2, 0.25, 12, 0, 0))
    assert len(limited.train) + len(limited.validation) == 12
    assert set(found(limited.test)) < set(cut(PLAN))
    assert SplitCounts.of(*limited.splits).sentence() == "9 training, 3 validation, 12 test"


def test_a_data_set_with_a_test_split_is_divided_as_before() -> None:
    test = split_of(torch.tensor([0, 1, 2]), first=1000)
    division = divide(data_of(test=test), DivisionPlan(0.2, 0.25, 40, seed=3, test_seed=3))
    expected = split_validation(limit_images(data_of().train, 40, 3), 0.25, 3)
    assert [found(division.train), found(division.validation)] == [found(split) for split in expected]
    assert found(division.test) == [1000, 1001, 1002]
    assert not division.test_is_cut


@pytest.mark.parametrize(("labels", "fraction"), [(None, 0.2), (LABELS, 0.0)], ids=["no labels", "none wanted"])
def test_no_test_split_is_cut(labels: torch.Tensor | None, fraction: float) -> None:
    division = divide(data_of(labels), DivisionPlan(fraction, 0.25, None, 0, 0))
    assert division.test is None
    assert SplitCounts.of(*division.splits).sentence() == "75 training, 25 validation, no test split"


def test_the_data_set_s_own_validation_images_are_the_validation_split() -> None:
    own = split_of(torch.tensor([2, 0, 1, 1]), first=500)
    division = divide(data_of(validation=own), PLAN)
    assert found(division.validation) == [500, 501, 502, 503]
    assert len(division.train) + len(found(division.test)) == 100
    limited = divide(data_of(validation=own), DivisionPlan(0.2, 0.25, 3, 0, 0))
    assert [len(split) for split in limited.splits if split is not None] == [3, 3, 3]


@pytest.mark.parametrize(("count", "validation", "needed"), [(2, False, 3), (1, True, 2)])
def test_a_class_too_small_for_all_splits_is_named(count: int, validation: bool, needed: int) -> None:
    labels = torch.tensor([0] * 5 + [1] * 5 + [2] * count)
    own = split_of(torch.tensor([0, 1]), first=500) if validation else None
    with pytest.raises(DataError, match=rf"class 'wasp' has {count} image.*at least {needed} .*test_fraction=0 "):
        divide(data_of(labels, validation=own), PLAN)


def test_classes_that_a_split_lacks_are_named() -> None:
    test, validation = split_of(torch.tensor([1, 1])), split_of(torch.tensor([0, 1]))
    division = divide(data_of(test=test, validation=validation), PLAN)
    assert told(division) == [
        "the test split has no images of 2 of 3 classes, so its accuracy says nothing about them: ant, wasp",
        "the validation split has no images of 1 of 3 classes, so no choice is made with them: wasp",
    ]
    many = tuple(f"c{number}" for number in range(50))
    (note, _) = told(division, many)
    assert note.endswith("c0, c2, c3, c4, c5, c6, c7, c8 and 41 more")


def test_a_cut_test_split_is_told_with_its_size() -> None:
    (note,) = told(divide(data_of(), PLAN))
    assert note == (
        "there is no test split, so 20% of the images of each class (20 images) are kept from training as one "
        "(data.test_fraction, data.split_seed)"
    )


def test_nothing_is_told_about_complete_splits() -> None:
    complete = split_of(LABELS)
    division = Division(complete, complete, complete, test_is_cut=False)
    assert told(division) == []
