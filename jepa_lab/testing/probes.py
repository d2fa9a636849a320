"""What every probe keeps."""

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

from jepa_lab.grid import Grid
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.probes.base import Probe, ProbeOutcome, require_outcome
from jepa_lab.probes.splits import labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.components import ComponentContract
from jepa_lab.testing.encoders import tiny_encoder
from jepa_lab.testing.subjects import (
    PATCH,
    labelled_images,
    make_splits,
    make_subject,
    splits_with_maps,
    with_maps,
    with_pyramid,
)


class ProbeContract(ComponentContract):
    """Tests of a `Probe`; `settings` should make it quick, on 90 images of three classes."""

    def known_to_runs(self, entry: Entry[Any]) -> list[Any]:
        return [splits_with_maps(), make_splits()]

    @pytest.fixture
    def probe(self, entry: Entry[Probe], params: ComponentParams) -> Probe:
        """The probe."""
        return entry.component(params)

    def test_accuracies_are_shares_and_an_outcome_is_json(self, probe: Probe) -> None:
        for subject in _subjects(probe):
            outcome = probe.run(subject)
            found = _accuracies(outcome, "validation") + _accuracies(outcome, "test")
            assert _accuracies(outcome, "validation")
            assert _accuracies(outcome, "test")
            assert all(math.isfinite(value) and 0 <= value <= 1 for value in found)
            keys = [score.key for score in outcome.scores]
            assert tuple(keys) == probe.score_keys(2)
            assert len(set(keys)) == len(keys)
            assert (keys[0] == "") == probe.gives_one_accuracy
            assert json.loads(json.dumps(outcome.to_dict(), allow_nan=False))["scores"]

    def test_every_accuracy_is_that_of_the_predicted_classes_of_all_images(self, probe: Probe) -> None:
        for subject in _subjects(probe):
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

    def test_the_levels_of_a_pyramid_are_probed_as_an_encoder_is(self, probe: Probe) -> None:
        outcome = probe.run(make_subject(with_pyramid(_encoder()), splits_with_maps(), depth=2))
        assert tuple(score.key for score in outcome.scores) == probe.score_keys(2)
        assert all(0 <= value <= 1 for value in _accuracies(outcome, "validation"))

    def test_without_a_test_split_nothing_is_known_about_it_and_nothing_else_changes(self, probe: Probe) -> None:
        with_test = probe.run(_on_encoder())
        without = probe.run(_on_encoder(splits=replace(splits_with_maps(), test=None)))
        assert _accuracies(without, "test") == []
        assert all(score.test_interval is None for score in without.scores)
        assert all(found.test is None for found in without.predictions.values())
        assert _accuracies(without, "validation") == _accuracies(with_test, "validation")

    def test_what_the_test_split_holds_changes_no_choice(self, probe: Probe) -> None:
        other = replace(splits_with_maps(), test=with_maps(labelled_images(60, 3, seed=77), seed=6))
        first, second = probe.run(_on_encoder()), probe.run(_on_encoder(splits=other))
        assert _accuracies(first, "validation") == _accuracies(second, "validation")
        assert [score.key for score in first.scores] == [score.key for score in second.scores]

    def test_it_is_repeated_exactly(self, entry: Entry[Probe], params: ComponentParams) -> None:
        outcomes = []
        for disturbance in (1, 2):
            torch.manual_seed(disturbance)
            outcomes.append(entry.component(params).run(_on_encoder()))
        assert outcomes[0].to_dict() == outcomes[1].to_dict()
        assert outcomes[0].predictions == outcomes[1].predictions

    @pytest.mark.parametrize("has_pyramid", [False, True], ids=["encoder", "pyramid"])
    @pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
    def test_an_encoder_is_left_as_it_was(self, probe: Probe, mode: bool, has_pyramid: bool) -> None:
        encoder = (with_pyramid(_encoder()) if has_pyramid else _encoder()).train(mode)
        before = copy.deepcopy(encoder.state_dict())
        state = torch.get_rng_state()
        probe.run(make_subject(encoder, splits_with_maps(), depth=2))
        assert torch.equal(state, torch.get_rng_state())
        after = encoder.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(module.training == mode for module in encoder.modules())
        assert all(not parameter.requires_grad and parameter.grad is None for parameter in encoder.parameters())

    def test_figures_are_written_into_the_folder_and_nothing_else_is_left(self, probe: Probe, tmp_path: Path) -> None:
        outcome = probe.run(_on_encoder(scratch=tmp_path / "scratch"))
        assert list(tmp_path.rglob("*.*")) == []
        probe.draw(outcome, make_splits().class_names, tmp_path / "figures")
        assert all(file.suffix == ".png" for file in tmp_path.rglob("*.*"))
        without = probe.run(_on_encoder(splits=replace(splits_with_maps(), test=None)))
        probe.draw(without, make_splits().class_names, tmp_path)


def _encoder() -> VisionTransformer:
    return tiny_encoder(Grid(2, 2), PATCH)


def _on_encoder(**changes: Any) -> Subject:
    return make_subject(_encoder(), **{"depth": 2, "splits": splits_with_maps(), **changes})


def _accuracies(outcome: ProbeOutcome, kind: str) -> list[float]:
    return [
        value for name, value in outcome.metrics().items() if re.search(rf"{kind}_[a-z]", name) and value is not None
    ]


def _subjects(probe: Probe) -> Iterator[Subject]:
    """An encoder, and raw pixels where the probe takes them."""
    yield _on_encoder()
    if not probe.needs_encoder:
        yield make_subject(None, splits_with_maps())
