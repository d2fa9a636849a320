"""What every registered probe must keep."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import jepa_lab.probes  # noqa: F401  (registers them)
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.label_maps import LabelMaps
from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.grid import Grid
from jepa_lab.models.hierarchy import Pyramid
from jepa_lab.models.pyramid_features import PyramidFeatures
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, require_outcome
from jepa_lab.probes.splits import ProbeSplits, labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import ComponentParams, Entry
from tests.unit.probes.fakes import labelled_images, make_splits, make_subject

SHORT: dict[str, dict[str, Any]] = {
    "attentive": {"epochs": 2, "num_heads": 2, "learning_rates": (0.01, 0.1), "weight_decays": (0.1,)},
    "finetune": {"epochs": 2, "batch_size": 30},
    "layerwise": {"c_grid": (0.1,)},
    "linear_ijepa": {"epochs": 2, "batch_size": 30},
    "linear_sgd": {"epochs": 3, "learning_rates": (0.01, 0.1), "ridges": (0.1, 1.0)},
    "logistic": {"c_grid": (0.1, 1.0)},
    "segmentation": {"epochs": 1, "learning_rates": (0.01, 0.1)},
    "low_shot": {"c_grid": (0.1,), "shots": (1, 5, 100), "draws": 2},
}
"""Parameters with which the probes that ship take no time."""

every_probe = pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name) for entry in PROBES])


def build(entry: Entry[Probe]) -> Probe:
    return entry.component(entry.params_type(**SHORT.get(entry.name, {})))


def with_maps(split: ImageSplit, seed: int = 5) -> ImageSplit:
    """Labelled images of 8 x 8 pixels, with a random class for each pixel of four."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 4, (len(split), 8, 8), generator=generator, dtype=torch.uint8)
    return replace(split, maps=LabelMaps(pixels, ("ground", "a", "b", "c")))


def splits_with_maps() -> ProbeSplits:
    splits = make_splits()
    assert splits.test is not None
    return replace(splits, **{name: with_maps(getattr(splits, name)) for name in ("train", "validation", "test")})


def tiny_encoder() -> VisionTransformer:
    """Two blocks on a grid of 2x2 patches; frozen, as a target encoder is."""
    size, grid = ModelSize(12, 2, 2), Grid(2, 2)
    position = POSITIONS.get("sincos").component(POSITIONS.get("sincos").params_type(), grid, 12, 2)
    encoder = VisionTransformer(grid, 4, 3, size, position)
    initialize_weights(encoder, torch.Generator().manual_seed(0))
    return encoder.requires_grad_(False)


def with_pyramid(encoder: VisionTransformer) -> PyramidFeatures:
    """The same under a learned pyramid of 2x2 cells and 1, both read."""
    conv = DOWNSAMPLINGS.get("conv").component(ComponentParams(), encoder.size.embed_dim)
    initialize_weights(conv, torch.Generator().manual_seed(1))
    pyramid = Pyramid([encoder.grid, encoder.grid.coarser()], [conv], skip_connections=True)
    return PyramidFeatures(encoder, pyramid.requires_grad_(False), (1, 2))


def on_encoder(**changes: Any) -> Subject:
    return make_subject(tiny_encoder(), **{"depth": 2, "splits": splits_with_maps(), **changes})


def accuracies(outcome: ProbeOutcome, kind: str) -> list[float]:
    return [
        value for name, value in outcome.metrics().items() if re.search(rf"{kind}_[a-z]", name) and value is not None
    ]


def subjects(probe: Probe) -> Iterator[Subject]:
    """An encoder, and raw pixels where the probe takes them."""
    yield on_encoder()
    if not probe.needs_encoder:
        yield make_subject(None, splits_with_maps())


@every_probe
def test_accuracies_are_shares_and_an_outcome_is_json(entry: Entry[Probe]) -> None:
    probe = build(entry)
    assert probe.check(probe.params, splits_with_maps()) is None
    for subject in subjects(probe):
        outcome = probe.run(subject)
        found = accuracies(outcome, "validation") + accuracies(outcome, "test")
        assert accuracies(outcome, "validation")
        assert accuracies(outcome, "test")
        assert all(math.isfinite(value) and 0 <= value <= 1 for value in found)
        keys = [score.key for score in outcome.scores]
        assert tuple(keys) == probe.score_keys(2)
        assert len(set(keys)) == len(keys)
        assert (keys[0] == "") == entry.component.gives_one_accuracy
        assert json.loads(json.dumps(outcome.to_dict(), allow_nan=False))["scores"]


@every_probe
def test_every_accuracy_is_that_of_the_predicted_classes_of_all_images(entry: Entry[Probe]) -> None:
    probe = build(entry)
    for subject in subjects(probe):
        outcome = probe.run(subject)
        require_outcome(probe, outcome, subject.splits)
        if not probe.predicts_classes:
            assert outcome.predictions == {}
            continue
        for score in outcome.scores:
            if score.validation is None:
                assert score.key not in outcome.predictions
                continue
            found = outcome.predictions[score.key]
            assert found.validation.shape[-1] == len(subject.splits.validation)
            right = found.validation == labels_of(subject.splits.validation).numpy()
            assert right.mean() == pytest.approx(score.validation, abs=1e-12)
            assert (found.test is None) == (score.test is None)
            if found.test is not None and subject.splits.test is not None:
                right = found.test == labels_of(subject.splits.test).numpy()
                assert right.mean() == pytest.approx(score.test, abs=1e-12)


@every_probe
def test_the_levels_of_a_pyramid_are_probed_as_an_encoder_is(entry: Entry[Probe]) -> None:
    probe = build(entry)
    outcome = probe.run(make_subject(with_pyramid(tiny_encoder()), splits_with_maps(), depth=2))
    assert tuple(score.key for score in outcome.scores) == probe.score_keys(2)
    assert all(0 <= value <= 1 for value in accuracies(outcome, "validation"))


@every_probe
def test_without_a_test_split_nothing_is_known_about_it_and_nothing_else_changes(entry: Entry[Probe]) -> None:
    probe = build(entry)
    with_test = probe.run(on_encoder())
    without = probe.run(on_encoder(splits=replace(splits_with_maps(), test=None)))
    assert accuracies(without, "test") == []
    assert all(score.test_interval is None for score in without.scores)
    assert all(found.test is None for found in without.predictions.values())
    assert accuracies(without, "validation") == accuracies(with_test, "validation")


@every_probe
def test_what_the_test_split_holds_changes_no_choice(entry: Entry[Probe]) -> None:
    probe = build(entry)
    other = replace(splits_with_maps(), test=with_maps(labelled_images(60, 3, seed=77), seed=6))
    first, second = probe.run(on_encoder()), probe.run(on_encoder(splits=other))
    assert accuracies(first, "validation") == accuracies(second, "validation")
    assert [score.key for score in first.scores] == [score.key for score in second.scores]


@every_probe
def test_a_probe_is_repeated_exactly(entry: Entry[Probe]) -> None:
    outcomes = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        outcomes.append(build(entry).run(on_encoder()))
    assert outcomes[0].to_dict() == outcomes[1].to_dict()
    assert outcomes[0].predictions == outcomes[1].predictions


@every_probe
@pytest.mark.parametrize("has_pyramid", [False, True], ids=["encoder", "pyramid"])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_an_encoder_is_left_as_it_was(entry: Entry[Probe], mode: bool, has_pyramid: bool) -> None:
    encoder = (with_pyramid(tiny_encoder()) if has_pyramid else tiny_encoder()).train(mode)
    before = copy.deepcopy(encoder.state_dict())
    state = torch.get_rng_state()
    build(entry).run(make_subject(encoder, splits_with_maps(), depth=2))
    assert torch.equal(state, torch.get_rng_state())
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training == mode for module in encoder.modules())
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in encoder.parameters())


@every_probe
def test_figures_are_written_into_the_folder_and_nothing_else_is_left(entry: Entry[Probe], tmp_path: Path) -> None:
    probe = build(entry)
    outcome = probe.run(on_encoder(scratch=tmp_path / "scratch"))
    assert list(tmp_path.rglob("*.*")) == []
    probe.draw(outcome, make_splits().class_names, tmp_path / "figures")
    assert all(file.suffix == ".png" for file in tmp_path.rglob("*.*"))
    probe.draw(
        probe.run(on_encoder(splits=replace(splits_with_maps(), test=None))), make_splits().class_names, tmp_path
    )
