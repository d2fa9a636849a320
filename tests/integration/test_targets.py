"""Targets and regularisers in whole runs: what they save, log and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.arithmetic import useful_flops_per_image
from jepa_lab.composition.start import start_run
from jepa_lab.config.checks import check_pipeline
from jepa_lab.errors import ConfigError, DataError
from jepa_lab.resume import resume_run
from jepa_lab.tracking.metrics import read_metrics
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run, final_weights, killed_run


def test_principal_components_are_saved_with_the_run_and_a_resumed_run_goes_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start_run(load_tiny(tmp_path, "target=pca"), tmp_path / "whole", ["test"]).folder
    saved = final_weights(whole)
    assert saved["target.components"].shape == (4, 1)
    assert saved["target.components"].square().sum().item() == pytest.approx(1, abs=1e-5)
    assert "hold" in whole.log.read_text()
    killed = killed_run(tmp_path, monkeypatch, 7, "target=pca")
    resume_run(killed, None, ["test"])
    assert_same_run(killed, whole)
    assert torch.equal(final_weights(killed)["target.components"], saved["target.components"])


def test_principal_components_are_a_function_of_the_seed_and_of_the_training_split(tmp_path: Path) -> None:
    def components(*overrides: str) -> torch.Tensor:
        given = ("target.num_images=20", "training.epochs=1", *overrides)
        run = start_run(load_tiny(tmp_path, "target=pca", *given), tmp_path / "runs", ["test"])
        return final_weights(run.folder)["target.components"]

    first = components()
    assert torch.equal(first, components())
    assert not torch.equal(first, components("seed=1"))
    assert not torch.equal(first, components("target.num_images=100"))


def test_terms_of_a_regulariser_are_logged_apart(tmp_path: Path) -> None:
    run = start_run(load_tiny(tmp_path, "regularizer=vicreg"), tmp_path / "runs", ["test"])
    rows = [row.metrics for row in read_metrics(run.folder.metrics) if "train/loss" in row.metrics]
    names = {"train/prediction_loss", "train/vicreg_variance", "train/vicreg_invariance", "train/vicreg_covariance"}
    assert all(names <= set(row) for row in rows)
    plain = start_run(load_tiny(tmp_path), tmp_path / "runs", ["test"])
    assert not any(names & set(row.metrics) for row in read_metrics(plain.folder.metrics))


def test_a_target_that_does_not_fit_is_refused_with_its_place(tmp_path: Path) -> None:
    for override, message in (
        ("target={name: pca, num_components: 5}", r"target\.num_components must be at most .* = 4\), got 5; lower it"),
        ("target.num_layers=2", r"target\.num_layers must be at most the number of blocks of the encoder \(1\), got 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_pipeline(load_tiny(tmp_path, override))


def test_a_refused_size_of_a_target_has_the_place_of_its_own_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^override 'target\.num_components=5': target\.num_components must be"):
        check_pipeline(load_tiny(tmp_path, "target=pca", "target.num_components=5"))
    with pytest.raises(ConfigError, match=r"^override 'target\.num_components=1': loss: 'cosine' compares"):
        check_pipeline(load_tiny(tmp_path, "loss=cosine", "target=pca", "target.num_components=1"))


def test_an_angle_between_single_numbers_is_refused(tmp_path: Path) -> None:
    one, two = ("target={name: pca, num_components: 1}", "target={name: pca, num_components: 2}")
    check_pipeline(load_tiny(tmp_path, two, "loss=cosine"))
    check_pipeline(load_tiny(tmp_path, one))
    with pytest.raises(ConfigError, match=r"loss: .*at least 2 numbers, and this target has 1.*"):
        check_pipeline(load_tiny(tmp_path, one, "loss=cosine"))


def test_too_few_patches_for_the_principal_components_are_refused(tmp_path: Path) -> None:
    few = ("encoder.patch_size=4", "masker={name: random, min_context_patches: 1}")
    with pytest.raises(DataError, match=r"num_components=4 needs more than 4 training patches, .* has 4"):
        start_run(
            load_tiny(tmp_path, *few, "target={name: pca, num_components: 4, num_images: 1}"), tmp_path / "a", ["test"]
        )
    start_run(
        load_tiny(tmp_path, *few, "target={name: pca, num_components: 3, num_images: 1}"), tmp_path / "b", ["test"]
    )


def test_operations_are_fewer_without_a_target_encoder(tmp_path: Path) -> None:
    def flops(*overrides: str) -> float:
        pipeline = load_tiny(tmp_path, *overrides).pipeline
        return useful_flops_per_image(pipeline, 1)

    assert flops("target=pixels") < flops("target.encode=target_patches_only") < flops()
