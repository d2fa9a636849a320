from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.label_maps import IGNORED, LabelMaps
from jepa_lab.errors import ConfigError, Problem
from jepa_lab.measures import MEAN_IOU
from jepa_lab.probes.base import ProbeOutcome, require_outcome
from jepa_lab.probes.mean_iou import PixelCounts
from jepa_lab.probes.segmentation import RateChoice, Segmentation, pixel_loss, upsampled
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject
from jepa_lab.testing.subjects import make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder

NAMES = ("background", "disc", "square", "star")
PATCH, SIDE = 4, 16
CPU = torch.device("cpu")


def probe(**params: Any) -> Segmentation:
    return Segmentation(Segmentation.Params(**params))


def patch_aligned(num_images: int, seed: int) -> ImageSplit:
    """Images whose rows of patches are of one class each; a pixel has the value of its class.

    In rows, because interpolation rounds corners off.
    """
    classes = torch.randint(0, len(NAMES), (num_images, 4, 1), generator=torch.Generator().manual_seed(seed))
    classes = classes.expand(-1, -1, 4)
    maps = classes.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2).to(torch.uint8)
    return ImageSplit(maps[:, None].expand(-1, 3, -1, -1).contiguous(), None, maps=LabelMaps(maps, NAMES))


def aligned_splits() -> ProbeSplits:
    parts = [patch_aligned(number, seed) for seed, number in enumerate((60, 20, 30))]
    return ProbeSplits(*parts, (), torch.zeros(3), torch.ones(3))


class OneHot(nn.Module):
    """The features of a patch are its class, one-hot and far apart."""

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        classes = (images[:, 0, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH] * 255).round().long()
        return F.one_hot(classes.flatten(1), len(NAMES)).float()


def run(encoder: nn.Module | None, splits: ProbeSplits, **params: Any) -> ProbeOutcome:
    subject = make_subject(encoder, splits)
    outcome = probe(**params).run(subject)
    require_outcome(probe(), outcome, splits)
    return outcome


def brute_force(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> list[float | None]:
    found: list[float | None] = []
    for label in range(num_classes):
        intersection = union = 0
        for true, guess in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
            if true != IGNORED:
                intersection += true == label and guess == label
                union += label in (true, guess)
        found.append(intersection / union if union else None)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_iou_of_batches_is_that_of_counting_pixel_by_pixel(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.choice([0, 1, 2, 4, IGNORED], size=(6, 5, 7))
    predicted = generator.choice([0, 1, 4], size=truth.shape)
    counts = PixelCounts(6, CPU)
    for part in range(0, 6, 2):
        counts.add(*(torch.from_numpy(maps[part : part + 2].astype(np.uint8)) for maps in (truth, predicted)))
    expected = brute_force(truth, predicted, 6)
    assert expected[3] is expected[5] is None
    assert counts.by_class() == pytest.approx(expected)
    assert counts.mean() == pytest.approx(np.mean([value for value in expected if value is not None]))


def test_where_every_pixel_is_ignored_the_mean_iou_is_zero_and_the_loss_finite() -> None:
    nothing = torch.full((1, 2, 2), IGNORED)
    counts = PixelCounts(3, CPU)
    counts.add(nothing, torch.zeros(1, 2, 2, dtype=torch.int64))
    assert (counts.by_class(), counts.mean()) == ([None] * 3, 0.0)
    assert pixel_loss(torch.ones(1, 3, 2, 2), nothing) == 0


def test_the_loss_is_the_mean_over_the_pixels_that_count() -> None:
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    labels[0, :2] = IGNORED
    counted = (labels != IGNORED).nonzero().tolist()
    by_hand = [-logits[i, :, y, x].log_softmax(0)[labels[i, y, x]] for i, y, x in counted]
    assert pixel_loss(logits, labels).item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-6)


def test_logits_are_interpolated_as_by_hand() -> None:
    """Bilinear between the centres of the patches; beyond the outermost centres, the value there."""
    patches = torch.randn(1, 9, 2, generator=torch.Generator().manual_seed(0))
    found = upsampled(patches, 12)[0]  # [C, 12, 12]
    grid = patches[0].T.reshape(2, 3, 3).double().numpy()
    centres = np.arange(3) * 4 + 2.0
    for y in range(12):
        for x in range(12):
            for channel in range(2):
                rows = [np.interp(x + 0.5, centres, grid[channel, row]) for row in range(3)]
                assert found[channel, y, x].item() == pytest.approx(np.interp(y + 0.5, centres, rows), abs=1e-5)


def test_features_that_are_the_class_of_the_patch_give_a_mean_iou_of_one() -> None:
    outcome = run(OneHot(), aligned_splits(), epochs=60, batch_size=8)
    assert outcome.scores[0].measure == MEAN_IOU
    assert outcome.scores[0].validation == 1
    assert outcome.scores[0].test == 1
    assert outcome.details["test_iou_by_class"] == dict.fromkeys(NAMES, 1.0)


def test_noise_gives_little_and_raw_pixels_of_the_class_more() -> None:
    splits = aligned_splits()
    noise = run(FakeEncoder(), replace(splits, train=with_noise(splits.train)), epochs=2)
    pixels = run(None, splits, epochs=60, batch_size=8)
    assert noise.scores[0].validation is not None
    assert pixels.scores[0].validation is not None
    assert noise.scores[0].validation < 0.4 < pixels.scores[0].validation


def with_noise(split: ImageSplit) -> ImageSplit:
    generator = torch.Generator().manual_seed(5)
    return replace(split, images=torch.randint(0, 256, tuple(split.images.shape), generator=generator).to(torch.uint8))


def test_the_validation_split_chooses_the_rate_and_an_end_of_the_grid_is_noted() -> None:
    outcome = run(OneHot(), aligned_splits(), learning_rates=(1e-6, 1e-5, 0.1), epochs=10)
    by_rate = dict(outcome.details["validation_mean_iou_by_learning_rate"])
    assert outcome.scores[0].validation == max(by_rate.values()) == by_rate[0.1]
    assert outcome.choice == "learning rate 0.1"
    assert "the largest of learning_rates" in outcome.notes[0]
    assert run(OneHot(), aligned_splits(), learning_rates=(0.1,), epochs=1).notes == ()


class Counted:
    """Stands for predictions of this mean IoU."""

    def __init__(self, mean_iou: float) -> None:
        self.mean_iou = mean_iou

    def mean(self) -> float:
        return self.mean_iou


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.01, (0.001, 0.01, 0.1)),
        (0.1, (0.001, 0.01, 0.1, 1.0)),
        (10.0, (0.001, 0.01, 0.1, 1.0, 10.0)),
        (1e-4, (1e-5, 1e-4, 0.001, 0.01, 0.1)),
    ],
)
def test_the_default_rates_go_on_until_the_best_one_lies_inside(best: float, tried: tuple[float, ...]) -> None:
    def fit(rates: Sequence[float]) -> list[Any]:
        return [Counted(1 / (1 + abs(math.log10(rate / best)))) for rate in rates]

    search = RateChoice.of(fit, None)
    assert tuple(sorted(search.counts)) == tried
    assert search.best_rate == best
    assert [("by default" in note) for note in search.notes()] == ([True] if best == 10 else [])


def test_an_explicit_grid_of_rates_is_not_extended() -> None:
    outcome = run(OneHot(), aligned_splits(), learning_rates=(1e-6, 1e-5), epochs=1)
    assert len(outcome.details["validation_mean_iou_by_learning_rate"]) == 2


def test_ignored_pixels_change_nothing() -> None:
    """What stands below an ignored pixel in training is not learned, and on validation it is not counted."""
    splits = aligned_splits()
    plain = run(OneHot(), splits, epochs=30, batch_size=8)
    hidden = torch.zeros(60, SIDE, SIDE, dtype=torch.bool)
    hidden[:, :, : SIDE // 2] = True
    maps = splits.train.maps
    assert maps is not None
    ignored = replace(maps, pixels=maps.pixels.masked_fill(hidden, IGNORED))
    half = run(OneHot(), replace(splits, train=replace(splits.train, maps=ignored)), epochs=30, batch_size=8)
    assert plain.scores[0].validation == pytest.approx(half.scores[0].validation, abs=0.02)


def test_without_a_test_split_there_is_no_test_iou() -> None:
    outcome = run(OneHot(), replace(aligned_splits(), test=None), epochs=1)
    assert outcome.scores[0].test is outcome.details["test_iou_by_class"] is None
    assert outcome.metrics() == {"validation_mean_iou": outcome.scores[0].validation, "test_mean_iou": None}


def test_images_without_label_maps_are_refused_with_what_to_do() -> None:
    problem = Segmentation.check(Segmentation.Params(), make_splits())
    assert isinstance(problem, Problem)
    assert "these images have no label maps; set probe.data.dataset=segmentation_folder" in problem.text("probe.method")
    assert Segmentation.check(Segmentation.Params(), aligned_splits()) is None


def test_features_that_are_not_of_a_square_of_patches_are_refused() -> None:
    class WithClassToken(OneHot):
        def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
            tokens = super().last_layers(images, num_layers)
            return torch.cat([tokens[:, :1], tokens], dim=1)

    with pytest.raises(ConfigError, match="this encoder gives 17 for an image"):
        run(WithClassToken(), aligned_splits())


def test_raw_pixels_of_a_patch_are_its_pixels_and_place_and_the_grid_is_that_of_the_encoder() -> None:
    images = torch.arange(2 * 3 * 8 * 8).remainder(256).reshape(2, 3, 8, 8).to(torch.uint8)
    subject: Subject = replace(make_subject(None), patch_size=4)
    (patches,) = subject.patch_batches(images)
    assert patches.shape == (2, 4, 48 + 2 + 2)
    for number, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        expected = images[:, :, row : row + 4, column : column + 4].flatten(1) / 255
        assert torch.allclose(patches[:, number, :48], expected)
        assert patches[:, number, 48:].nonzero()[:2, 1].tolist() == [row // 4, 2 + column // 4]
    assert math.isqrt(patches.shape[1]) == 2
