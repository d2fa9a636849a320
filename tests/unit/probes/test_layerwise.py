"""Tests of the layer-wise probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_lab.figures.depths import draw_depths
from jepa_lab.probes.layerwise import Layerwise
from jepa_lab.probes.logistic import logistic_probe
from jepa_lab.testing.subjects import make_subject
from tests.unit.probes.fakes import FakeEncoder

PROBE = Layerwise(Layerwise.Params(c_grid=(0.01, 0.1, 1.0)))


class BestInTheMiddle(FakeEncoder):
    """The second of four blocks keeps what the others drown in noise."""

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        tokens = super().last_layers(images, num_layers)
        noise = torch.randn(len(images), 1, num_layers, 6, generator=torch.Generator().manual_seed(len(images)))
        keep = torch.tensor([0.01, 1.0, 0.01, 0.01])[-num_layers:, None]
        return (tokens.unflatten(2, (num_layers, -1)) * keep + noise * (1 - keep)).flatten(2)


def test_each_depth_is_the_logistic_probe_of_that_block() -> None:
    outcome = PROBE.run(make_subject(FakeEncoder()))
    for block in range(1, 5):
        encoder = FakeEncoder()
        with torch.no_grad():  # the block as the last one
            encoder.weight[-1] = encoder.weight[block - 1]
        features = make_subject(encoder).features
        alone = logistic_probe(features.train, features.validation, None, PROBE.params, ("a", "b", "c"))
        assert outcome.details["validation_accuracy_by_depth"][block - 1] == alone.validation_accuracy
        assert outcome.details["c_by_depth"][block - 1] == alone.c


def test_the_last_depth_is_the_plain_probe() -> None:
    subject = make_subject(FakeEncoder())
    features = subject.features
    plain = logistic_probe(features.train, features.validation, None, PROBE.params, subject.splits.class_names)
    assert PROBE.run(subject).details["validation_accuracy_by_depth"][-1] == plain.validation_accuracy


def test_the_validation_split_chooses_the_depth_that_the_test_split_is_scored_at() -> None:
    subject = make_subject(BestInTheMiddle())
    outcome = PROBE.run(subject)
    accuracies = outcome.details["validation_accuracy_by_depth"]
    assert outcome.details["best_depth"] == 2 == accuracies.index(max(accuracies)) + 1
    assert outcome.scores[0].validation == max(accuracies)
    features = subject.layer_features(4)
    assert features.test is not None
    train, validation, test = (
        (part.unflatten(1, (4, -1))[:, 1], labels)
        for part, labels in (features.train, features.validation, features.test)
    )
    alone = logistic_probe(train, validation, test, PROBE.params, subject.splits.class_names)
    assert outcome.scores[0].test == alone.test_accuracy
    assert all(score.test is None for score in outcome.scores[1:])
    assert outcome.metrics()["depth_3_validation_accuracy"] == accuracies[2]


@pytest.mark.parametrize("accuracies", [[0.5], [0.1, 0.9, 0.8], [0.3] * 24])
def test_the_figure_shows_every_depth(accuracies: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("jepa_lab.figures.depths.write_png", lambda figure, out: drawn.append(figure))
    draw_depths(accuracies, tmp_path / "x.png")
    (axes,) = drawn[0].axes
    assert list(axes.lines[0].get_ydata()) == accuracies
    assert list(axes.lines[1].get_xdata()) == [accuracies.index(max(accuracies)) + 1]


def test_of_equally_good_depths_the_first_is_taken() -> None:
    class EveryBlockAlike(FakeEncoder):
        def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
            return super().last_layers(images, 1).repeat(1, 1, num_layers)

    outcome = PROBE.run(make_subject(EveryBlockAlike()))
    assert len(set(outcome.details["validation_accuracy_by_depth"])) == 1
    assert outcome.details["best_depth"] == 1


def test_blocks_whose_c_is_at_an_end_of_the_grid_are_named_and_the_default_grid_goes_on_for_each() -> None:
    at_end = Layerwise(Layerwise.Params(c_grid=(1e-6, 1e-5))).run(make_subject(FakeEncoder()))
    told = " ".join(at_end.notes)
    assert "of c_grid; extend the grid there, or leave it out" in told
    assert "C is at an end of the values tried for block " in told
    default = Layerwise(Layerwise.Params()).run(make_subject(FakeEncoder()))
    assert "c_grid" not in " ".join(default.notes)
