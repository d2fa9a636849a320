"""The evaluation at probe epochs."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_lab.build import PreparedData, build_model
from jepa_lab.data.base import ImageSplit
from jepa_lab.evaluation import OnlineEvaluation
from jepa_lab.training.devices import Compute
from tests.integration.pipelines import load_tiny

COMPUTE = Compute(torch.device("cpu"), "fp32", False)


def sorted_data(num_images: int) -> PreparedData:
    """Images sorted by class, each painted in the colour of its class."""
    labels = torch.arange(num_images) * 10 // num_images
    images = (labels * 25).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    split = ImageSplit(images, labels)
    names = tuple(map(str, range(10)))
    return PreparedData(split, split, None, names, "digest", "test", torch.tensor([0.5]), torch.tensor([0.3]))


def build_evaluation(tmp_path: Path, *overrides: str) -> OnlineEvaluation:
    pipeline = load_tiny(tmp_path, *overrides).pipeline
    data = sorted_data(2000)
    return OnlineEvaluation(pipeline, build_model(pipeline, 1), data, data, COMPUTE)


def test_monitored_images_are_of_every_class_though_files_are_sorted(tmp_path: Path) -> None:
    evaluation = build_evaluation(tmp_path)
    assert len(evaluation.images) == 512
    colours, counts = evaluation.images[:, 0, 0, 0].unique(return_counts=True)
    assert len(colours) == 10
    assert counts.min() > 20


def test_monitored_images_and_masks_are_the_same_for_every_seed(tmp_path: Path) -> None:
    first, second = build_evaluation(tmp_path), build_evaluation(tmp_path, "seed=7")
    assert torch.equal(first.images, second.images)
    pairs = zip(first.masks, second.masks, strict=True)
    assert all(torch.equal(one.context, two.context) for one, two in pairs)


def test_evaluating_draws_nothing_and_changes_nothing(tmp_path: Path) -> None:
    evaluation = build_evaluation(tmp_path)
    before = torch.get_rng_state()
    first, second = evaluation.evaluate(), evaluation.evaluate()
    assert torch.equal(before, torch.get_rng_state())
    assert first.metrics == second.metrics


def test_the_validation_loss_does_not_depend_on_how_it_is_cut_into_batches(tmp_path: Path) -> None:
    evaluation = build_evaluation(tmp_path, "training.batch_size=512")
    whole = evaluation._validation_loss()
    masks = evaluation.masks[0]
    evaluation.masks = [masks[start : start + 128] for start in range(0, 512, 128)]
    evaluation._parts = lambda: evaluation.images.split(128)  # type: ignore[method-assign]
    assert abs(evaluation._validation_loss() - whole) < 1e-6
