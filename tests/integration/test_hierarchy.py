"""Runs with coarser levels: what they log, how they go on, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import jepa_lab.evaluation
from jepa_lab.build import build_model, build_sampler
from jepa_lab.composition.start import start_run
from jepa_lab.config.checks import check_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.inspection import inspect_pipeline
from jepa_lab.probes.subject import Subject
from jepa_lab.reprobe import probe_again
from jepa_lab.resume import resume_run
from jepa_lab.tracking.metrics import read_metrics
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run, final_weights, killed_run

FINE = "encoder.patch_size=1"  # an 8x8 grid: levels of 8x8, 4x4 and 2x2 cells
LEVELS = "hierarchy={num_levels: 3, loss_weights: [1.0, 0.7, 0.5], downsampling: conv, skip_connections: true}"


def test_every_level_is_logged_and_their_weighted_sum_is_the_loss(tmp_path: Path) -> None:
    overrides = (FINE, LEVELS, "training.log_every_steps=1", "training.epochs=1")
    run = start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", ["test"])
    rows = [row.metrics for row in read_metrics(run.folder.metrics) if "train/loss" in row.metrics]
    for row in rows:
        levels = [row[f"train/loss_level_{level}"] for level in (1, 2, 3)]
        assert row["train/loss"] == pytest.approx(levels[0] + 0.7 * levels[1] + 0.5 * levels[2], rel=1e-5)
        visible = [row[f"train/visible_targets_level_{level}"] for level in (1, 2, 3)]
        assert visible[0] == 0
        assert all(0 <= share <= 0.5 for share in visible)
    assert sum(row["train/visible_targets_level_2"] for row in rows) > 0
    assert run.result["metrics"]["encoder_parameters"] > 2 * 4 * 16 * 16  # the pyramid's are among them


@pytest.mark.parametrize(
    ("override", "level"),
    [("hierarchy.skip_connections=true", "loss_level_1"), ("hierarchy.downsampling=conv", "loss_level_2")],
)
def test_what_is_chosen_of_the_pyramid_changes_the_level_that_it_makes(
    tmp_path: Path, override: str, level: str
) -> None:
    """Skip connections change the finer of two levels, downsampling the coarser one."""
    losses = []
    for overrides in ((), (override,)):
        pipeline = load_tiny(tmp_path, FINE, "hierarchy.num_levels=2", *overrides).pipeline
        masks = build_sampler(pipeline).sample(4, torch.Generator().manual_seed(0))
        images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        terms = build_model(pipeline, 1)(images, masks).terms
        losses.append({name: term.item() for name, term in terms.items()})
    assert losses[0][level] != losses[1][level]
    assert {name for name in losses[0] if losses[0][name] != losses[1][name]} == {level}


def test_the_probe_reads_levels_of_the_pyramid_on_both_sides_and_of_the_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []
    build = jepa_lab.evaluation.build_subject

    def remember(*arguments: Any) -> Subject:
        subject = build(*arguments)
        widths.append(subject.features.train[0].shape[1])
        return subject

    monkeypatch.setattr(jepa_lab.evaluation, "build_subject", remember)
    given = (FINE, LEVELS, "probe.levels=[1, 3]", "probe.both_encoders=true", "training.epochs=1")
    run = start_run(load_tiny(tmp_path, *given), tmp_path / "runs", ["test"])
    assert widths == [32, 32, 32, 64]  # trained, other, random; raw pixels
    assert run.result["encoder"]["num_features"] == 32
    encoder_alone = ["probe.levels=null", "probe.both_encoders=false"]
    again, alone = (
        json.loads(probe_again(run.folder, overrides, None, score_test=True)[0].read_text())["probe"]
        for overrides in ([], encoder_alone)
    )
    assert widths[8:] == [16, 16, 64]
    rows = json.loads(run.folder.result.read_text())["probe"]
    assert again == rows
    assert alone["raw_pixels"] == rows["raw_pixels"]
    for row in ("trained", "random_encoder"):
        assert alone[row]["logistic"] != rows[row]["logistic"]


def test_levels_are_probed_at_another_resolution(tmp_path: Path) -> None:
    given = (FINE, LEVELS, "probe.levels=[2]", "probe.image_size=6", "training.epochs=1")
    run = start_run(load_tiny(tmp_path, *given), tmp_path / "runs", ["test"])
    assert run.result["metrics"]["random_encoder/validation_accuracy"] is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("probe.levels=[1]",), r"probe\.levels=\[1\] .*num_levels is 1; use null"),
        ((FINE, LEVELS, "probe.levels=[2, 4]"), r"probe\.levels=\[2, 4\] .*num_levels is 3; use at most 3"),
        ((FINE, LEVELS, "probe.levels=[2, 1]"), r"probe\.levels must be ascending without repetition, got \[2, 1\]"),
        ((FINE, LEVELS, "probe.levels=[]"), r"probe\.levels must have at least 1 item"),
        ((FINE, LEVELS, "probe.levels=[0]"), r"probe\.levels\.0 must be greater than or equal to 1"),
    ],
)
def test_levels_that_cannot_be_probed_are_refused(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_pipeline(load_tiny(tmp_path, *overrides))


@pytest.mark.parametrize("predictor", ["separate", "shared_level_tokens"])
def test_a_hierarchy_that_was_killed_goes_on_bitwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: str
) -> None:
    given = (FINE, LEVELS, f"hierarchy.predictor={predictor}")
    whole = start_run(load_tiny(tmp_path, *given), tmp_path / "whole", ["test"]).folder
    killed = killed_run(tmp_path, monkeypatch, 7, *given)
    resume_run(killed, None, ["test"])
    assert_same_run(killed, whole)
    assert any(name.startswith("hierarchy.target_pyramid.") for name in final_weights(whole))


def test_check_says_of_every_level_how_many_targets_it_has_and_how_much_of_them_is_visible(tmp_path: Path) -> None:
    found = {}
    for counted in ("patches", "level_below"):
        loaded = load_tiny(tmp_path, FINE, LEVELS, f"hierarchy.count_targets_on={counted}")
        found[counted] = inspect_pipeline(loaded).levels
    middle, coarsest = found["patches"]
    assert (str(middle.grid), str(coarsest.grid)) == ("4x4", "2x2")
    assert 1 < middle.cells < 6
    assert 0 < middle.visible < 0.5
    assert middle == found["level_below"][0]
    assert coarsest.cells < found["level_below"][1].cells
    assert coarsest.visible < found["level_below"][1].visible
    assert inspect_pipeline(load_tiny(tmp_path, FINE)).levels == ()


def test_what_targets_are_counted_on_changes_the_third_level_alone(tmp_path: Path) -> None:
    found = {}
    for counted in ("patches", "level_below"):
        pipeline = load_tiny(tmp_path, FINE, LEVELS, f"hierarchy.count_targets_on={counted}").pipeline
        masks = build_sampler(pipeline).sample(64, torch.Generator().manual_seed(0))
        found[counted] = build_model(pipeline, 1).count_targets(masks).tolist()
    assert found["patches"][:2] == found["level_below"][:2]
    assert found["patches"][2] < found["level_below"][2]


def test_one_level_is_the_run_without_a_hierarchy(tmp_path: Path) -> None:
    first, second = (
        final_weights(start_run(load_tiny(tmp_path, FINE, *given), tmp_path / name, ["test"]).folder)
        for name, given in {"plain": (), "one": ("hierarchy.num_levels=1", "hierarchy.downsampling=conv")}.items()
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (FINE, "hierarchy.num_levels=4"),
            r"num_levels=4 makes the coarsest level 1x1 cells of the 8x8.*lower it",
        ),
        ((FINE, "hierarchy.num_levels=2", "target=pixels"), r"'pixels' cannot be predicted at hierarchy\.num_levels=2"),
        ((FINE, "hierarchy.num_levels=2", "target.encode=target_patches_only"), "use whole_image"),
        (
            (FINE, "hierarchy.num_levels=2", "masker={name: multi_block, target_scale: [0.01, 0.02]}"),
            r"num_levels=2: none of the 4x4 cells of level 2 was a target .*enlarge the masker's targets",
        ),
    ],
)
def test_levels_that_cannot_be_predicted_are_refused(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_pipeline(load_tiny(tmp_path, *overrides))


def test_a_weight_for_each_level_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss_weights must have a number for each of the 2 level\(s\)"):
        load_tiny(tmp_path, "hierarchy={num_levels: 2, loss_weights: [1.0]}")
    with pytest.raises(ConfigError, match="must not all be 0"):
        load_tiny(tmp_path, "hierarchy={num_levels: 2, loss_weights: [0, 0]}")


def test_a_weight_of_the_only_level_is_refused_because_it_would_weigh_nothing(tmp_path: Path) -> None:
    load_tiny(tmp_path, "hierarchy={num_levels: 1, loss_weights: [1.0]}")
    with pytest.raises(ConfigError, match=r"loss_weights of one level must be \[1\], got \(0\.5,\)"):
        load_tiny(tmp_path, "hierarchy={num_levels: 1, loss_weights: [0.5]}")
