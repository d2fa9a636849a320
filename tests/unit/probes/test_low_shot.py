"""Tests of the low-shot probe."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jepa_lab.probes.logistic import logistic_probe
from jepa_lab.probes.low_shot import LowShot, draw_labels, mean_interval
from jepa_lab.randomness import build_generator
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder

SUBJECT = make_subject(FakeEncoder())
"""30 training images of each of 3 classes."""


def low_shot(**params: Any) -> LowShot:
    return LowShot(LowShot.Params(**{"c_grid": (0.01, 0.1, 1.0), "draws": 3, **params}))


def test_all_labels_give_the_logistic_probe_itself() -> None:
    probe = low_shot(shots=(1, "all"))
    score = probe.run(SUBJECT).scores[1]
    features, names = SUBJECT.features, SUBJECT.splits.class_names
    plain = logistic_probe(features.train, features.validation, features.test, probe.params, names)
    assert score.validation == plain.validation_accuracy
    assert score.test == plain.test_accuracy
    assert probe.run(SUBJECT).details["draws"]["all"][0]["c"] == plain.c


def test_as_many_labels_as_there_are_give_its_validation_accuracy_in_every_draw() -> None:
    probe = low_shot(shots=(30,), c_grid=(0.1,))
    outcome = probe.run(SUBJECT)
    features, names = SUBJECT.features, SUBJECT.splits.class_names
    plain = logistic_probe(features.train, features.validation, None, probe.params, names)
    assert {draw["validation_accuracy"] for draw in outcome.details["draws"]["30"]} == {plain.validation_accuracy}
    assert outcome.scores[0].validation_interval == pytest.approx((plain.validation_accuracy,) * 2)


def test_each_draw_is_a_fit_of_scikit_learn_on_its_labels_alone() -> None:
    c, (train, labels) = 0.1, SUBJECT.features.train
    outcome = low_shot(shots=(5,), c_grid=(c,)).run(SUBJECT)
    assert SUBJECT.features.test is not None
    expected: dict[str, list[float]] = {"validation": [], "test": []}
    for number in range(3):
        chosen = draw_labels(labels, 5, build_generator(0, f"low shot 5 {number}"))
        by_hand = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-9, max_iter=20_000))
        by_hand.fit(train[chosen].double().numpy(), labels[chosen].numpy())
        for split, (features, truth) in (
            ("validation", SUBJECT.features.validation),
            ("test", SUBJECT.features.test),
        ):
            expected[split].append(by_hand.score(features.double().numpy(), truth.numpy()))
    score = outcome.scores[0]
    assert [draw["validation_accuracy"] for draw in outcome.details["draws"]["5"]] == expected["validation"]
    assert [draw["test_accuracy"] for draw in outcome.details["draws"]["5"]] == expected["test"]
    assert score.test == pytest.approx(statistics.fmean(expected["test"]))
    assert len(set(expected["test"])) > 1, "draws differ"
    interval = stats.t.interval(0.95, 2, statistics.fmean(expected["test"]), stats.sem(expected["test"]))
    assert score.test_interval == pytest.approx(tuple(map(float, interval)))


def test_c_is_chosen_as_by_scikit_learn_s_cross_validation_within_the_labels() -> None:
    grid, (train, labels) = (1e-4, 0.01, 1.0), SUBJECT.features.train
    outcome = low_shot(shots=(3, 10), c_grid=grid).run(SUBJECT)
    for shots, folds in ((3, 3), (10, 5)):
        for number, draw in enumerate(outcome.details["draws"][str(shots)]):
            chosen = draw_labels(labels, shots, build_generator(0, f"low shot {shots} {number}"))
            features, truth = train[chosen].double().numpy(), labels[chosen].numpy()
            means = []
            for c in grid:
                by_hand = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-9, max_iter=20_000))
                means.append(cross_val_score(by_hand, features, truth, cv=StratifiedKFold(folds)).mean())
            tried_in_vain = draw["c"] != grid[max(range(3), key=lambda index: (means[index], -index))]
            assert not tried_in_vain, (shots, number, means)
            assert draw["chosen_by"] == "cross_validation"


def test_labels_of_the_other_splits_choose_nothing() -> None:
    splits = make_splits()
    other = replace(splits, validation=labelled_images(45, 3, seed=55), test=labelled_images(60, 3, seed=66))
    found = [
        low_shot(shots=(1, 5, 20)).run(make_subject(FakeEncoder(), each)).details["draws"] for each in (splits, other)
    ]
    chosen = [[[draw["c"] for draw in draws] for draws in each.values()] for each in found]
    assert chosen[0] == chosen[1]
    assert len({c for draws in chosen[0] for c in draws}) > 1


def test_one_label_a_class_has_a_fixed_c_and_says_so() -> None:
    outcome = low_shot(shots=(1, 2), c_of_one_label=0.3).run(SUBJECT)
    assert {(draw["c"], draw["chosen_by"]) for draw in outcome.details["draws"]["1"]} == {(0.3, "one_label_rule")}
    assert [score.label for score in outcome.scores] == ["1 label a class, C=0.3", "2 labels a class"]
    given = low_shot(shots=(1, 2), c_grid=(0.1,)).run(SUBJECT)
    assert {draw["chosen_by"] for draws in given.details["draws"].values() for draw in draws} == {"given"}
    assert [score.label for score in given.scores] == ["1 label a class", "2 labels a class"]


def test_a_draw_has_that_many_labels_of_each_class_and_no_image_twice() -> None:
    labels = torch.tensor([0] * 7 + [1] * 20 + [2] * 9)[torch.randperm(36, generator=torch.Generator().manual_seed(0))]
    seen = torch.zeros(36)
    for number in range(200):
        chosen = draw_labels(labels, 5, build_generator(0, f"test {number}"))
        assert labels[chosen].bincount().tolist() == [5, 5, 5]
        assert len(chosen.unique()) == 15
        seen[chosen] += 1
    assert (seen > 0).all(), "every image can be drawn"


def test_numbers_of_labels_that_a_class_has_not_got_are_skipped_and_said() -> None:
    splits = make_splits()
    few = torch.cat([torch.arange(0, 90, 3)[:4], torch.arange(1, 90, 3), torch.arange(2, 90, 3)])
    subject = make_subject(None, replace(splits, train=splits.train.subset(few)))
    outcome = low_shot(shots=(1, 4, 5, 100)).run(subject)
    assert [score.validation is None for score in outcome.scores] == [False, False, True, True]
    assert outcome.notes[0] == "5, 100 labels a class were skipped: the smallest class has 4 training image(s)"
    assert outcome.metrics()["5_test_accuracy"] is None


def test_a_c_at_an_end_of_a_given_grid_is_noted_and_the_default_grid_goes_on_in_every_draw() -> None:
    given = low_shot(shots=(5, 20), c_grid=(1e-6, 1e-5)).run(SUBJECT)
    assert "C is at an end of c_grid at 5, 20 labels a class; extend the grid there, or leave it out" in given.notes
    default = LowShot(LowShot.Params(shots=(20,), draws=3)).run(SUBJECT)
    assert all(draw["c_at_edge"] is None for draw in default.details["draws"]["20"])
    assert "c_grid" not in str(default.notes)
    alone = low_shot(shots=(5,), c_grid=(0.1,)).run(SUBJECT)
    assert alone.notes == ()


def test_more_draws_change_no_earlier_draw_and_runs_of_other_seeds_draw_the_same_labels() -> None:
    few = low_shot(shots=(5,), draws=2).run(SUBJECT).details["draws"]["5"]
    more = low_shot(shots=(5,), draws=4).run(make_subject(FakeEncoder(), seed=7)).details["draws"]["5"]
    assert len(more) == 4
    assert more[:2] == few


def test_more_labels_help() -> None:
    splits = make_splits()
    big = replace(splits, train=labelled_images(600, 3, seed=5))
    means = [score.validation for score in low_shot(shots=(1, 100)).run(make_subject(None, big)).scores]
    assert means[0] is not None
    assert means[1] is not None
    assert means[1] > means[0] + 0.1


def test_an_interval_needs_two_draws_and_stays_within_shares() -> None:
    assert mean_interval([0.5]) is None
    low, high = mean_interval([0.1, 1.0]) or (math.nan, math.nan)
    assert (low, high) == (0.0, 1.0)


@pytest.mark.parametrize("shots", [(), (0,), (5, 1), (1, 1), ("all", 1), ("most",), (1.5,), (True,)])
def test_shots_that_are_not_increasing_numbers_are_refused(shots: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError, match="shots"):
        LowShot.Params(shots=shots)
