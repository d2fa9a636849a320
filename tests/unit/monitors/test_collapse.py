"""The rules of collapse: on features made to collapse, on histories by hand, and on curves of real runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.collapse import REGIMES, observations
from jepa_lab.monitors.collapse import CollapseDetector, CollapseSettings, Observation, Verdict
from jepa_lab.monitors.image_variance_ratio import image_variance_ratio
from jepa_lab.monitors.rankme import centred_rankme, rankme

HEALTHY = Observation(0.4, 8.0, 11.0, num_images=287, width=64)


def watched(history: Iterable[Observation], settings: CollapseSettings | None = None) -> list[Verdict]:
    detector = CollapseDetector(settings or CollapseSettings())
    return [detector.observe(seen) for seen in history]


def statuses(history: Iterable[Observation], settings: CollapseSettings | None = None) -> list[str]:
    return [verdict.status for verdict in watched(history, settings)]


def seen_in(patches: Tensor) -> Observation:
    """The monitors of features [n, N, D], as the evaluation takes them."""
    pooled = patches.mean(dim=1)
    return Observation(image_variance_ratio(patches), rankme(pooled), centred_rankme(pooled), *pooled.shape)


def features(directions: int, of_image: float = 1.0, of_position: float = 0.5) -> Tensor:
    """Features [200, 16, 32]: a part that depends on the image, along so many directions, and one on the position."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    of_images = normal(200, 1, directions) + 0.3 * normal(200, 16, directions)
    return 0.3 + of_image * of_images @ normal(directions, 32) / directions**0.5 + of_position * normal(1, 16, 32)


@pytest.mark.parametrize(
    ("collapsed", "rule"),
    [
        (features(32, of_image=0, of_position=0), "hardly depend on the image"),  # constant
        (features(32, of_image=1e-3, of_position=0), "hardly depend on the image"),  # nearly constant
        (features(32, of_image=0), "hardly depend on the image"),  # the position alone
        (features(32, of_image=1e-3), "hardly depend on the image"),  # nearly the position alone
        (features(1), "differ along few directions"),
        (features(2), "differ along few directions"),
    ],
)
@pytest.mark.parametrize("before", [[], [features(32)] * 2])
def test_each_kind_of_collapse_is_warned_of_at_once_and_marked_when_it_persists(
    before: list[Tensor], collapsed: Tensor, rule: str
) -> None:
    verdicts = watched([*map(seen_in, before), *[seen_in(collapsed)] * 4])
    found = [verdict.status for verdict in verdicts]
    assert found == ["healthy"] * len(before) + ["warned", "warned", "collapsed", "collapsed"]
    assert any(rule in reason for reason in verdicts[-1].reasons)


def test_rank_that_is_lost_slowly_is_warned_of_once_much_of_it_has_been_gone_for_a_while() -> None:
    history = [seen_in(features(directions)) for directions in (32, 28, 24, 20, 16, 12, 9, 7, 6, 5, 5, 4, 4)]
    verdicts = watched(history)
    found = [verdict.status for verdict in verdicts]
    first = found.index("warned")
    assert found == ["healthy"] * first + ["warned"] * (len(found) - first)
    most = 0.5 * (history[0].rankme_centred - 1)
    assert first == next(place for place, seen in enumerate(history) if seen.rankme_centred - 1 <= most) + 2
    assert "have lost directions" in str(verdicts[-1].sentence())


def test_features_in_many_directions_are_healthy_however_far_off_their_common_mean_lies() -> None:
    seen = seen_in(features(32) + 40)
    assert seen.image_variance_ratio < 0.001
    assert seen.rankme < 2.2
    assert statuses([seen] * 5) == ["healthy"] * 5


def test_a_run_that_has_lost_most_of_the_image_is_marked_before_it_reaches_a_floor() -> None:
    lost = replace(HEALTHY, image_variance_ratio=0.09, rankme=2.0)  # the mean of all images outweighs them
    verdicts = watched([HEALTHY, lost, lost, lost])
    assert [verdict.status for verdict in verdicts] == ["healthy", "warned", "warned", "collapsed"]
    assert verdicts[1].sentence() == (
        "the features depend much less on the image than before: the image variance ratio is 0.09 and was 0.4, RankMe "
        "is 2 and was 8; after 2 more such probe epochs in a row the run is marked collapsed"
    )
    assert str(verdicts[2].sentence()).endswith("; after one more such probe epoch the run is marked collapsed")
    assert str(verdicts[3].sentence()).endswith("; the run is marked collapsed")


def test_features_that_begin_to_encode_the_position_keep_their_directions_and_are_healthy() -> None:
    assert set(statuses([HEALTHY] + [replace(HEALTHY, image_variance_ratio=0.05)] * 5)) == {"healthy"}


def test_what_is_compared_with_is_the_best_so_far_and_not_the_first() -> None:
    rising = [replace(HEALTHY, image_variance_ratio=ratio, rankme=rank) for ratio, rank in [(0.02, 2), (0.2, 8)]]
    fallen = [replace(HEALTHY, image_variance_ratio=0.05, rankme=3)] * 3  # above the first
    assert statuses([*rising, *fallen]) == ["healthy", "healthy", "warned", "warned", "collapsed"]


def test_a_warning_is_withdrawn_when_the_features_recover_and_a_mark_stays_with_its_reasons() -> None:
    few = replace(HEALTHY, rankme_centred=1.5)
    assert statuses([few, few, HEALTHY, few, few, HEALTHY]) == ["warned", "warned", "healthy"] * 2
    verdicts = watched([few, few, few, HEALTHY, HEALTHY])
    assert [verdict.status for verdict in verdicts] == ["warned", "warned", "collapsed", "collapsed", "collapsed"]
    assert verdicts[-1] == verdicts[2]


def test_lost_rank_alone_never_marks() -> None:
    lost = replace(HEALTHY, rankme_centred=4.0)
    verdicts = watched([HEALTHY, *[lost] * 20])
    assert [verdict.status for verdict in verdicts] == ["healthy"] * 3 + ["warned"] * 18
    assert verdicts[3].sentence() == (
        "the features have lost directions: the centred RankMe is 4 and was 11, and collapse.rank_fraction is 0.5; so "
        "it has been for 3 probe epochs in a row"
    )
    assert statuses([HEALTHY, lost, lost, HEALTHY, lost, lost, HEALTHY]) == ["healthy"] * 7


# Rounded from runs on photographs and on shapes that ended 3 and 13 points above their random encoders.
@pytest.mark.parametrize("ranks", [(42.3, 15.0, 16.6, 17.8, 18.3, 18.3), (30.5, 11.4, 13.7, 16.3, 17.5)])
def test_rank_that_falls_below_that_of_a_random_encoder_and_rises_again_is_healthy(ranks: tuple[float, ...]) -> None:
    assert set(statuses(replace(HEALTHY, rankme_centred=rank) for rank in ranks)) == {"healthy"}


@pytest.mark.parametrize(("rank", "status"), [(3.62, "warned"), (3.63, "healthy")])
def test_lost_rank_is_warned_of_until_it_has_recovered_by_a_twentieth(rank: float, status: str) -> None:
    lost = replace(HEALTHY, rankme_centred=3.5)
    assert statuses([HEALTHY, lost, lost, lost, replace(HEALTHY, rankme_centred=rank)])[-2:] == ["warned", status]


@pytest.mark.parametrize(
    ("setting", "at", "above"),
    [
        ({"variance_floor": 0.01}, {"image_variance_ratio": 0.01}, {"image_variance_ratio": 0.0101}),
        ({"rank_floor": 8.0}, {"rankme_centred": 8.0}, {"rankme_centred": 8.01}),
        (
            {"variance_fraction": 0.25, "rank_fraction": 0.5},
            {"image_variance_ratio": 0.1, "rankme": 4.5},
            {"image_variance_ratio": 0.101, "rankme": 4.5},
        ),
        (
            {"variance_fraction": 0.25, "rank_fraction": 0.5},
            {"image_variance_ratio": 0.1, "rankme": 4.5},
            {"image_variance_ratio": 0.1, "rankme": 4.51},
        ),
        ({"rank_fraction": 0.4}, {"rankme_centred": 5.0}, {"rankme_centred": 5.01}),
    ],
)
def test_each_threshold_is_a_setting_and_holds_at_the_value(
    setting: dict[str, Any], at: dict[str, Any], above: dict[str, Any]
) -> None:
    settings = CollapseSettings(patience=1, **setting)
    assert statuses([HEALTHY, replace(HEALTHY, **at)], settings)[-1] != "healthy"
    assert statuses([HEALTHY, replace(HEALTHY, **above)], settings)[-1] == "healthy"


def test_patience_is_the_number_of_probe_epochs_in_a_row() -> None:
    few = replace(HEALTHY, rankme_centred=1.5)
    assert statuses([few], CollapseSettings(patience=1)) == ["collapsed"]
    assert statuses([few] * 3, CollapseSettings(patience=4)) == ["warned"] * 3


@pytest.mark.parametrize(
    "few", [Observation(0.0, 1.0, 1.0, 7, 64), Observation(0.3, 1.5, 1.5, 8, 64), Observation(0.3, 1.5, 1.5, 500, 7)]
)
def test_a_handful_of_images_or_directions_is_not_judged_by_what_it_cannot_show(few: Observation) -> None:
    assert statuses([few] * 5) == ["healthy"] * 5


@pytest.mark.parametrize("split", range(8))
def test_a_restored_detector_goes_on_as_if_not_interrupted(split: int) -> None:
    lost, few = replace(HEALTHY, rankme_centred=4.0), replace(HEALTHY, rankme_centred=1.5)
    history = [HEALTHY, lost, lost, few, few, few, HEALTHY]
    first, second = CollapseDetector(CollapseSettings()), CollapseDetector(CollapseSettings())
    before = [first.observe(seen) for seen in history[:split]]
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    assert second.verdict() == first.verdict()
    assert before + [second.observe(seen) for seen in history[split:]] == watched(history)
    assert second.collapsed


def test_a_run_of_an_earlier_jepa_lab_goes_on_with_what_its_checkpoint_remembers() -> None:
    detector = CollapseDetector(CollapseSettings())
    old = {"highest_variance_ratio": 0.9, "loss": 0.2, "highest_rank": 50.0, "suspicious_epochs": 2, "collapsed": False}
    detector.restore(old)
    assert detector.verdict().status == "healthy"
    little = replace(HEALTHY, image_variance_ratio=0.1, rankme=3.0)
    assert "was 0.9, RankMe is 3 and was 51" in (detector.observe(little).sentence() or "")
    detector.restore({**old, "collapsed": True})
    assert detector.verdict().sentence() == "the run is marked collapsed"


CURVES: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "collapse_curves.json").read_text())["runs"]
"""Monitors of real runs, recorded by `python -m benchmarks.collapse`."""


def test_the_recorded_runs_are_those_that_the_benchmark_trains() -> None:
    trained = {name: {**asdict(regime), "overrides": list(regime.overrides)} for name, regime in REGIMES.items()}
    recorded = {name: {key: run[key] for key in ("kind", "pipeline", "overrides")} for name, run in CURVES.items()}
    assert recorded == trained
    assert {run["kind"] for run in recorded.values()} == {
        "healthy", "rank lost", "nothing learned", "few dimensions", "constant features", "position alone",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, run in CURVES.items() if run["kind"] == "healthy"])
def test_no_healthy_run_is_ever_warned_of(name: str) -> None:
    assert set(statuses(observations(CURVES[name]))) == {"healthy"}


@pytest.mark.parametrize("name", [name for name, run in CURVES.items() if run["kind"] == "rank lost"])
def test_every_run_that_loses_rank_is_warned_of(name: str) -> None:
    assert "warned" in statuses(observations(CURVES[name]))


@pytest.mark.parametrize("name", [name for name, run in CURVES.items() if run["kind"] == "nothing learned"])
def test_runs_that_learn_nothing_and_keep_their_rank_are_left_to_the_random_control(name: str) -> None:
    first, *_, last = (row[-1] for row in CURVES[name]["curve"])  # epoch 0 is the random encoder
    assert last <= first


@pytest.mark.parametrize("name", [name for name, run in CURVES.items() if run["kind"] == "few dimensions"])
def test_every_run_whose_features_come_to_differ_along_few_directions_is_warned_of_to_its_end(name: str) -> None:
    assert set(statuses(observations(CURVES[name]))[3:]) <= {"warned", "collapsed"}


@pytest.mark.parametrize("name", [name for name, run in CURVES.items() if run["kind"] == "constant features"])
def test_every_run_whose_features_become_constant_is_marked(name: str) -> None:
    assert statuses(observations(CURVES[name]))[-1] == "collapsed"


@pytest.mark.parametrize("name", [name for name, run in CURVES.items() if run["kind"] == "position alone"])
def test_every_run_that_comes_to_encode_the_position_alone_is_marked(name: str) -> None:
    assert statuses(observations(CURVES[name]))[-1] == "collapsed"
