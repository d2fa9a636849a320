"""Whole runs: what they leave behind, how they resume, how they stop."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

import jepa_lab.composition.work as work_module
import jepa_lab.training.checkpoint as checkpoint_module
from jepa_lab.build import build_model, prepare_data
from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline, load_resolved
from jepa_lab.config.pipeline import rebuild_schema
from jepa_lab.errors import (
    ConfigError,
    DataError,
    DeviceError,
    JepaLabError,
    RunFolderError,
    RunInterrupted,
    RunPruned,
    RunStopped,
)
from jepa_lab.evaluation import OnlineEvaluation, final_monitors
from jepa_lab.maskers.base import MASKERS, Masker, Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.monitors.rankme import rankme
from jepa_lab.probes.features import extract_features
from jepa_lab.reprobe import probe_again
from jepa_lab.resume import resume_run
from jepa_lab.runs.predictions import read_predictions
from jepa_lab.summary import print_probe
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore
from jepa_lab.training.devices import Compute
from jepa_lab.training.finite import FiniteGate
from jepa_lab.training.pretrain import Evaluation, Pretraining
from jepa_lab.training.step import StepStatistics, TrainingStep
from tests.integration.pipelines import TINY, load_tiny, write_tiny
from tests.integration.runs import assert_same_run, copy_of, final_weights, killed_run, tensor_files, timeless_rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    folder = tmp_path_factory.mktemp("finished")
    return start_run(load_tiny(folder), folder / "runs", ["jepa-lab", "run", "tiny.yaml"])


def test_a_run_leaves_its_whole_record(finished: RunOutcome) -> None:
    folder = finished.folder
    assert folder.path.name.startswith("tiny-")
    assert folder.path.name.endswith("-s0")
    result = json.loads(folder.result.read_text())
    assert result["status"] == "FINISHED"
    assert set(result["probe"]) == {"trained", "random_encoder", "raw_pixels"}
    for name in ("probe/test_accuracy", "random_encoder/test_accuracy", "raw_pixels/validation_accuracy", "rankme_end"):
        assert result["metrics"][name] is not None
    assert (folder.figures / "confusion.png").is_file()  # painted: see test_run_figures.py
    assert folder.environment.exists()
    assert "training from step 0" in folder.log.read_text()
    predictions = read_predictions(folder.path, result["predictions"])
    for name in ("probe/validation_accuracy", "probe/test_accuracy", "raw_pixels/knn_test_accuracy"):
        scored = predictions.scored(name)
        assert scored is not None
        assert scored.correct.mean() == pytest.approx(result["metrics"][name])


def test_mean_and_std_of_the_channels_are_in_the_result_and_in_the_model_file(finished: RunOutcome) -> None:
    result = json.loads(finished.folder.result.read_text())
    images = prepare_data(load_pipeline(finished.folder.config).pipeline).train.images
    pixels = images[list(range(len(images)))].double() / 255
    assert result["channel_mean"] == pytest.approx([pixels.mean().item()])
    assert result["channel_std"] == pytest.approx([pixels.std(unbiased=False).item()], rel=1e-4)
    with safe_open(finished.folder.path / result["final_checkpoint"] / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    for key in ("channel_mean", "channel_std"):
        assert json.loads(metadata[key]) == result[key]
        assert finished.folder.read_description().tags[key] == metadata[key]


def test_mean_and_std_that_the_pipeline_chooses_are_recorded(tmp_path: Path) -> None:
    loaded = load_tiny(tmp_path, "data.channel_mean=[0.25]", "data.channel_std=[0.5]", "training.epochs=1")
    outcome = start_run(loaded, tmp_path / "runs", [])
    assert (outcome.result["channel_mean"], outcome.result["channel_std"]) == ([0.25], [0.5])
    metadata = CheckpointStore(outcome.folder.checkpoints).load().model_metadata
    assert metadata == {"channel_mean": "[0.25]", "channel_std": "[0.5]"}


def test_metrics_hold_every_monitor_at_the_promised_steps(finished: RunOutcome) -> None:
    rows = read_metrics(finished.folder.metrics)
    monitors = [row.step for row in rows if "monitor/rankme" in row.metrics]
    assert monitors == [0, 5, 10, 15]
    for row in rows:
        if "monitor/rankme" in row.metrics:
            names = (
                "validation/loss",
                "monitor/rankme_centred",
                "monitor/feature_std",
                "monitor/image_variance_ratio",
                "monitor/uniformity",
                "monitor/alpha_req",
                "probe/online_validation_accuracy",
            )
            assert all(row.metrics[name] is not None for name in names)
    logged = [row for row in rows if "train/loss" in row.metrics]
    assert {2, 4, 6, 8, 10, 12, 14, 15} <= {row.step for row in logged}
    for name in ("encoder_gradient_norm", "predictor_gradient_norm", "context_patches", "target_patches",
                 "ema_momentum", "learning_rate", "weight_decay", "images_per_second", "peak_memory_mib"):  # fmt: skip
        assert all(f"train/{name}" in row.metrics for row in logged)


def test_the_result_holds_the_monitors_of_training_images_and_how_many_they_are(finished: RunOutcome) -> None:
    metrics = finished.result["metrics"]
    for name in ("rankme", "alpha_req", "lidar"):
        assert metrics[f"monitor/{name}_train_images"] == 120, "160, without a quarter for validation"
    assert metrics["rankme_images"] == 40
    assert 1 <= metrics["monitor/rankme_train"] <= 16
    assert 1 <= metrics["monitor/rankme_centred_train"] <= 16
    assert 1 <= metrics["monitor/lidar_train"] <= 16
    pipeline = load_pipeline(finished.folder.config).pipeline
    data = prepare_data(pipeline)
    model = build_model(pipeline, 1)
    model.load_state_dict(CheckpointStore(finished.folder.checkpoints).load().model)
    arguments = (data.train.images, data.mean, data.std, 1, 60, torch.device("cpu"))
    assert metrics["monitor/rankme_train"] == pytest.approx(rankme(extract_features(model.target_encoder, *arguments)))


def test_the_monitors_of_the_end_can_be_left_out(tmp_path: Path) -> None:
    overrides = ("training.epochs=1", "monitors.end=[]", "monitors.probe_epochs=[]")
    outcome = start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", [])
    assert not any(name.startswith("monitor/") for name in outcome.result["metrics"])
    (row, *_) = (row.metrics for row in read_metrics(outcome.folder.metrics) if "validation/loss" in row.metrics)
    monitored = {name for name in row if name.startswith("monitor/")}
    always = ("collapsed", "rankme", "rankme_centred", "feature_std", "image_variance_ratio")
    assert monitored == {f"monitor/{name}" for name in always}


def test_no_more_training_images_are_monitored_than_asked_for_and_they_are_the_same_for_every_seed(
    tmp_path: Path,
) -> None:
    metrics = []
    for seed in (0, 1):
        loaded = load_tiny(tmp_path, "monitors.max_train_images=50", f"seed={seed}", "data.split_seed=3")
        pipeline = loaded.pipeline
        data, model = prepare_data(pipeline), build_model(load_tiny(tmp_path).pipeline, 1)
        metrics.append(final_monitors(pipeline, model, data, Compute(torch.device("cpu"), "fp32", False)))
    assert metrics[0]["monitor/rankme_train_images"] == 50
    assert metrics[0] == metrics[1]


def test_the_model_is_evaluated_after_the_last_epoch_whatever_the_interval(tmp_path: Path) -> None:
    outcome = start_run(load_tiny(tmp_path, "probe.every_epochs=2"), tmp_path / "runs", [])
    rows = [row for row in read_metrics(outcome.folder.metrics) if "validation/loss" in row.metrics]
    assert [(row.step, row.epoch) for row in rows] == [(0, 0), (10, 2), (15, 3)]
    assert outcome.result["metrics"]["rankme_end"] == rows[-1].metrics["monitor/rankme"]


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.5, 0.7, 0.7, 0.6], (5, 0.7)), ([0.7, 0.7, 0.7, 0.7], (0, 0.7)), ([0.1, 0.2, 0.3, 0.4], (15, 0.4))],
)
def test_the_best_checkpoint_is_the_first_that_reaches_the_highest_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accuracies: list[float], best: tuple[int, float]
) -> None:
    remaining = iter(accuracies)
    evaluate = OnlineEvaluation.evaluate
    monkeypatch.setattr(
        OnlineEvaluation, "evaluate", lambda self: replace(evaluate(self), online_probe=next(remaining))
    )
    outcome = start_run(load_tiny(tmp_path), tmp_path / "runs", [])
    step, accuracy = best
    assert outcome.result["best_online_probe"] == {"step": step, "accuracy": accuracy}
    assert step in CheckpointStore(outcome.folder.checkpoints).steps()


def test_the_last_two_checkpoints_and_the_best_are_kept(finished: RunOutcome) -> None:
    steps = CheckpointStore(finished.folder.checkpoints).steps()
    best = finished.result["best_online_probe"]["step"]
    assert set(steps) == {12, 15, best}


def test_the_resolved_config_runs_again_to_the_same_weights(finished: RunOutcome, tmp_path: Path) -> None:
    again = start_run(load_pipeline(finished.folder.config), tmp_path, ["again"])
    first, second = final_weights(finished.folder), final_weights(again.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert tensor_files(finished.folder) == tensor_files(again.folder)
    assert again.folder.path.name == finished.folder.path.name


def test_another_seed_changes_the_weights_but_not_the_splits(finished: RunOutcome, tmp_path: Path) -> None:
    other = start_run(load_tiny(tmp_path, "seed=1"), tmp_path, ["other"])
    assert other.folder.path.name == finished.folder.path.name.replace("-s0", "-s1")
    first, second = final_weights(finished.folder), final_weights(other.folder)
    assert not torch.equal(first["predictor.mask_token"], second["predictor.mask_token"])
    raw = [outcome.result["metrics"]["raw_pixels/test_accuracy"] for outcome in (finished, other)]
    assert raw[0] == raw[1]


@pytest.mark.parametrize("kill_at", [1, 7, 10, 13])
def test_a_resumed_run_ends_bitwise_as_an_uninterrupted_one(
    finished: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    folder = killed_run(tmp_path, monkeypatch, kill_at)
    torch.rand(3)  # the global generator must not matter
    assert json.loads(folder.result.read_text())["status"] == "KILLED"
    outcome = resume_run(folder, None, [])
    assert outcome.result["status"] == "FINISHED"
    first, second = final_weights(finished.folder), final_weights(folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert tensor_files(folder) == tensor_files(finished.folder)
    assert timeless_rows(folder) == timeless_rows(finished.folder)
    for part in ("probe", "predictions", "best_online_probe"):  # of predictions the digest
        assert outcome.result[part] == finished.result[part]
    assert outcome.result["metrics"]["training_seconds"] > 0


def test_resume_refuses_a_changed_configuration_and_names_the_keys(finished: RunOutcome, tmp_path: Path) -> None:
    given = load_pipeline(finished.folder.config, ["training.epochs=9", "loss.beta=2.0"]).pipeline
    with pytest.raises(RunFolderError, match=r"loss\.beta \(1\.0 -> 2\.0\).*training\.epochs \(3 -> 9\)"):
        resume_run(finished.folder, given, [])


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("batch_size: 24", "batch_size: 12", r"training\.batch_size \(24 -> 12\)"),
        ("seed: 0", "seed: 1", r"seed \(0 -> 1\)"),
    ],
)
def test_resume_refuses_a_config_file_that_was_edited_and_names_the_keys(
    finished: RunOutcome, tmp_path: Path, before: str, after: str, named: str
) -> None:
    copy = copy_of(finished, tmp_path)
    text = copy.config.read_text()
    copy.config.write_text(re.sub(rf"\b(?<!_){before}$", after, text, flags=re.MULTILINE))
    with pytest.raises(RunFolderError, match=rf"changed since the run began: {named};"):
        resume_run(copy, None, [])


def test_a_run_that_is_alive_cannot_be_resumed(finished: RunOutcome, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    before = copy.result.read_bytes()
    with FileLock(copy.path / "run.lock", "the run") as lock:
        assert lock.try_acquire()
        with pytest.raises(RunFolderError, match="another process is at work on the run"):
            resume_run(copy, None, [])
    assert copy.result.read_bytes() == before
    assert resume_run(copy, None, []).result["status"] == "FINISHED"


def test_a_run_holds_its_lock_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    take_step = Pretraining.after_step

    def look(self: Pretraining, *arguments: Any) -> None:
        (path,) = (tmp_path / "runs").iterdir()
        seen.append(FileLock(path / "run.lock", "the run").try_acquire())
        take_step(self, *arguments)

    monkeypatch.setattr(Pretraining, "after_step", look)
    start_run(load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs", ["locked"])
    assert seen == [False] * 5


@pytest.mark.parametrize(("device", "precision"), [("cuda", "fp32"), ("cpu", "bf16")])
def test_a_run_of_another_device_or_precision_cannot_be_resumed(
    finished: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, precision: str
) -> None:
    copy = copy_of(finished, tmp_path)
    copy.remove_result()
    load = checkpoint_module.load_checkpoint

    def of_another_machine(folder: Path) -> Checkpoint:
        checkpoint = load(folder)
        checkpoint.run.device, checkpoint.run.precision = device, precision
        return checkpoint

    monkeypatch.setattr(checkpoint_module, "load_checkpoint", of_another_machine)
    with pytest.raises(DeviceError, match=rf"began on {device} in {precision}"):
        resume_run(copy, None, [])


def test_non_finite_numbers_stop_the_run_before_they_reach_the_weights(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match=r"not finite at step \d+ .*[Ll]ast good checkpoint.*step-0") as caught:
        start_run(load_tiny(tmp_path, "optimizer.learning_rate=1e30", "loss=l2"), tmp_path / "runs", ["hot"])
    assert "1e+30" in str(caught.value) or "learning rate" in str(caught.value)
    (path,) = (tmp_path / "runs").iterdir()
    folder = RunFolder.open(path)
    result = json.loads(folder.result.read_text())
    assert result["status"] == "FAILED"
    assert "not finite" in result["error"]
    assert result["images"]["training"] > 0
    store = CheckpointStore(folder.checkpoints)
    assert all(tensor.isfinite().all() for step in store.steps() for tensor in store.load(step).model.values())


@pytest.fixture
def poisoned_batches(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Numbers of steps whose images are not finite."""
    steps: set[int] = set()
    take_step = TrainingStep.__call__

    def poison(self: TrainingStep, images: torch.Tensor, *arguments: Any) -> StepStatistics:
        return take_step(self, images * (math.nan if int(self.numbers.step) in steps else 1), *arguments)

    monkeypatch.setattr(TrainingStep, "__call__", poison)
    return steps


def test_batches_that_are_not_finite_are_skipped_by_choice_counted_and_told_and_a_resumed_run_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned_batches: set[int]
) -> None:
    poisoned_batches |= {3, 9}  # no last steps of a row, whose gradient norms would be no numbers to compare
    chosen = ("training.max_skipped_batches=2",)
    whole = start_run(load_tiny(tmp_path, *chosen), tmp_path / "whole", ["test"])
    assert whole.result["status"] == "FINISHED"
    assert whole.result["metrics"]["skipped_steps"] == 2
    told = "skipped 1 of 2 batches since step 2, because loss or gradients were not finite (1 in this run so far)"
    assert told in whole.folder.log.read_text()
    assert all(tensor.isfinite().all() for tensor in final_weights(whole.folder).values())
    resumed = resume_run(killed_run(tmp_path, monkeypatch, 5, *chosen), None, ["test"])
    assert resumed.result["metrics"]["skipped_steps"] == 2
    assert_same_run(resumed.folder, whole.folder)


def test_one_more_batch_in_a_row_than_may_be_skipped_ends_the_run_with_3(
    tmp_path: Path, poisoned_batches: set[int]
) -> None:
    poisoned_batches |= {2, 5, 6, 7}
    with pytest.raises(RunStopped, match=r"not finite at step 5 .* and at the 2 step\(s\) after it") as caught:
        start_run(load_tiny(tmp_path, "training.max_skipped_batches=2"), tmp_path / "runs", ["test"])
    assert caught.value.exit_code == 3


def test_non_finite_features_stop_the_run_with_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    # One step an epoch: the step's own numbers are finite, and the weights that it leaves overflow at the probe.
    overrides = ["optimizer.learning_rate=1e30", "loss=l2", "training.batch_size=120"]
    overrides += ["optimizer.warmup_epochs=0", "optimizer.warmup_fraction=null"]
    with pytest.raises(
        RunStopped, match=r"at step 1 \(learning rate 7\.5e\+29\).*Last good checkpoint: .*step-00000000"
    ):
        start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", ["hot"])
    (path,) = (tmp_path / "runs").iterdir()
    assert CheckpointStore(path / "checkpoints").steps() == [0]


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = OnlineEvaluation.evaluate

    def overflow(self: OnlineEvaluation) -> Evaluation:
        found = evaluate(self)
        return replace(found, metrics={**found.metrics, "validation/loss": float("inf")})

    monkeypatch.setattr(OnlineEvaluation, "evaluate", overflow)
    with pytest.raises(RunStopped, match=r"at step 0 .*validation loss is not finite.*none was written"):
        start_run(load_tiny(tmp_path), tmp_path / "runs", ["hot"])


@pytest.mark.parametrize(
    ("settings", "place", "field"),
    [
        (["probe.online_max_images=5"], "override 'probe.online_max_images=5'", "probe.online_max_images"),
        (["probe.additional=[{name: knn, neighbors: 500}]"], "override 'probe.additional=", "additional.0.neighbors"),
        (["probe.additional=[]", "probe.method={name: knn, neighbors: 500}"], "override 'probe.method=", "method.n"),
        (["probe.additional=[]", "probe.method=knn", "probe.method.neighbors=500"], "override 'probe.method.n", "m"),
    ],
)
def test_a_probe_that_the_data_do_not_allow_is_refused_before_anything_is_written(
    tmp_path: Path, settings: list[str], place: str, field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        start_run(load_tiny(tmp_path, *settings), tmp_path / "runs", [])
    assert str(caught.value).startswith(place)
    assert f"probe.{field.removeprefix('probe.')}" in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.device=tpu", "training.device must be auto"),
        ("data.max_images=5", "data.max_images must be at least"),
        ("data.channel_mean=[0.5, 0.5]", "data.channel_mean and data.channel_std must have"),
        ("data.dataset=image_folder", "root"),
        ("probe.data={dataset: {name: cifar10, download: false}, root: /nowhere}", "/nowhere"),
    ],
)
def test_unusable_data_and_devices_are_told_with_the_place_that_chose_them(
    tmp_path: Path, override: str, told: str
) -> None:
    overrides = [override] + (["data.channel_std=[0.5, 0.5]"] if "channel_mean" in override else [])
    with pytest.raises(JepaLabError) as caught:
        start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", [])
    assert re.match(r"(override '|.*tiny\.yaml:\d+: )", str(caught.value)), caught.value
    assert told in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_images_without_labels_are_pretrained_on_and_their_probe_is_skipped_and_said(tmp_path: Path) -> None:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(images / f"{number}.png")
    overrides = ["data.dataset=image_folder", f"data.root={images}", "data.max_images=null"]
    outcome = start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", ["flat"])
    assert outcome.result["probe"] is None
    assert "no labels" in outcome.result["probe_skipped"]
    assert outcome.result["metrics"]["monitor/lidar_train_images"] == 30
    assert outcome.result["metrics"]["monitor/lidar_train"] is not None
    labelled = ["probe.data={dataset: {name: synthetic, num_train: 200, num_test: 60}}"]
    outcome = start_run(load_tiny(tmp_path, *overrides, *labelled), tmp_path / "runs", ["flat"])
    assert outcome.result["metrics"]["probe/test_accuracy"] is not None
    with pytest.raises(ConfigError, match=r"probe\.additional\.0=segmentation needs the class of every pixel, .* name"):
        start_run(load_tiny(tmp_path, *overrides, "probe.additional=[segmentation]"), tmp_path / "runs", ["flat"])


def test_a_batch_larger_than_the_data_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tiny\.yaml:10: training\.batch_size must be at most .* 500 and 120"):
        start_run(
            load_pipeline(write_tiny(tmp_path, TINY.replace("batch_size: 24", "batch_size: 500"))),
            tmp_path / "runs",
            [],
        )
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_run_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(RunFolderError, match="runs"):
        start_run(load_tiny(tmp_path), tmp_path / "runs", [])


def test_a_probe_split_without_a_class_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises((DataError, ConfigError)):
        start_run(load_tiny(tmp_path, "data.max_images=10"), tmp_path / "runs", [])
    assert not (tmp_path / "runs").exists()


def test_the_stored_config_names_the_run_it_belongs_to(finished: RunOutcome) -> None:
    pipeline = load_resolved(finished.folder.config.read_text(), "config.yaml")
    assert pipeline == load_pipeline(finished.folder.config).pipeline


def test_a_forced_collapse_is_marked_and_can_stop_the_run(tmp_path: Path) -> None:
    # Without EMA the target follows the context encoder at once, and constant features are the easiest to predict.
    overrides = [
        "ema_momentum={name: constant, value: 0.0}",
        "target.normalization=none",
        "training.epochs=40",
        "optimizer.learning_rate=5e-3",
        "training.stop_on_collapse=true",
    ]
    with pytest.raises(RunStopped, match="collapsed"):
        start_run(load_tiny(tmp_path, *overrides), tmp_path / "runs", ["collapse"])
    (path,) = (tmp_path / "runs").iterdir()
    folder = RunFolder.open(path)
    for _ in range(2):  # resuming changes nothing about it
        result = folder.read_result()
        assert result is not None
        assert (result["status"], result["collapsed"], result["metrics"]["collapsed"]) == ("FAILED", True, 1.0)
        with pytest.raises(RunStopped, match=r"collapsed by step .*found before"):
            resume_run(folder, None, [])


def test_target_and_context_encoder_are_told_apart_by_the_probe(tmp_path: Path) -> None:
    chosen = ("target", "context")
    overrides = ["optimizer.learning_rate=1e-2", "probe.online_max_images=100"]
    runs = [start_run(load_tiny(tmp_path, *overrides, f"probe.encoder={name}"), tmp_path, [name]) for name in chosen]
    first, second = (final_weights(run.folder) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    monitored = [[row.metrics for row in read_metrics(run.folder.metrics)] for run in runs]
    spreads = [[row["monitor/feature_std"] for row in rows if "monitor/feature_std" in row] for rows in monitored]
    assert spreads[0][0] == spreads[1][0], "the target encoder starts as a copy"
    assert spreads[0][-1] != spreads[1][-1]
    accuracies = [run.result["probe"]["trained"]["logistic"]["validation_accuracy_by_c"] for run in runs]
    assert accuracies[0] != accuracies[1]
    file, _ = probe_again(runs[0].folder, ["probe.encoder=context"], None, score_test=True)
    assert json.loads(file.read_text())["probe"]["trained"] == runs[1].result["probe"]["trained"]
    assert "other_encoder" not in runs[0].result["probe"]


@pytest.mark.parametrize("chosen", ["target", "context"])
def test_a_result_holds_both_encoders_where_both_are_asked_for(
    tmp_path: Path, chosen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["optimizer.learning_rate=1e-2", f"probe.encoder={chosen}", "probe.both_encoders=true"]
    run = start_run(load_tiny(tmp_path, *overrides), tmp_path, ["both"])
    rows, other = run.result["probe"], {"target": "context", "context": "target"}[chosen]
    file, _ = probe_again(run.folder, [f"probe.encoder={other}", "probe.both_encoders=false"], None, score_test=True)
    assert rows["other_encoder"] == json.loads(file.read_text())["probe"]["trained"]
    assert rows["other_encoder"] != rows["trained"]
    accuracy = run.result["metrics"]["other_encoder/validation_accuracy"]
    assert accuracy == rows["other_encoder"]["logistic"]["scores"][0]["validation_accuracy"]
    print_probe(run.result)
    assert "its other encoder" in capsys.readouterr().out


def test_a_run_in_bf16_ends_with_finite_weights_that_are_kept_in_single_precision(
    finished: RunOutcome, tmp_path: Path
) -> None:
    outcome = start_run(load_tiny(tmp_path, "training.precision=bf16"), tmp_path / "runs", ["bf16"])
    first, second = final_weights(finished.folder), final_weights(outcome.folder)
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in second.values())
    assert not torch.equal(first["predictor.mask_token"], second["predictor.mask_token"])
    assert CheckpointStore(outcome.folder.checkpoints).load().run.precision == "bf16"


def test_a_logged_loss_is_the_mean_over_the_steps_since_the_row_before(tmp_path: Path) -> None:
    folders = [
        start_run(load_tiny(tmp_path, f"training.log_every_steps={every}"), tmp_path / "runs", []).folder
        for every in (1, 3)
    ]
    single, several = (
        {row.step: row.metrics["train/loss"] for row in read_metrics(folder.metrics) if "train/loss" in row.metrics}
        for folder in folders
    )
    assert list(single) == list(range(1, 16))
    before = 0
    for step, loss in several.items():
        losses = [single[each] for each in range(before + 1, step + 1)]
        assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        before = step
    assert before == 15


def test_refused_steps_are_counted_in_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = FiniteGate.judge

    def refuse_the_third(self: FiniteGate, loss: torch.Tensor, norm: torch.Tensor, step: int) -> torch.Tensor:
        refused = judge(self, loss, norm, step)
        return torch.ones_like(refused) if step == 3 else refused

    monkeypatch.setattr(FiniteGate, "judge", refuse_the_third)
    outcome = start_run(load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs", [])
    rows = [row for row in read_metrics(outcome.folder.metrics) if "train/loss" in row.metrics]
    assert [(row.step, row.metrics["train/skipped_steps"]) for row in rows] == [(2, 0), (4, 1), (5, 1)]


def test_speed_and_time_of_training_are_those_of_its_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("jepa_lab.training.stopwatch.time", SimpleNamespace(monotonic=lambda: clock[0]))
    after_step, evaluate = Pretraining.after_step, OnlineEvaluation.evaluate

    def take_two_seconds(self: Pretraining, *arguments: Any) -> None:
        clock[0] += 2
        after_step(self, *arguments)

    def take_a_hundred(self: OnlineEvaluation) -> Evaluation:
        clock[0] += 100
        return evaluate(self)

    monkeypatch.setattr(Pretraining, "after_step", take_two_seconds)
    monkeypatch.setattr(OnlineEvaluation, "evaluate", take_a_hundred)
    outcome = start_run(load_tiny(tmp_path), tmp_path / "runs", [])
    rows = [row.metrics for row in read_metrics(outcome.folder.metrics) if "train/loss" in row.metrics]
    assert {row["train/images_per_second"] for row in rows} == {24 / 2}
    assert outcome.result["metrics"]["training_seconds"] == 15 * 2
    assert outcome.result["metrics"]["images_per_second"] == 24 / 2


def test_the_result_says_where_the_time_went(finished: RunOutcome) -> None:
    seconds = finished.result["seconds"]
    phases = {name: value for name, value in seconds.items() if name not in ("final_probe_rows", "total")}
    assert all(value > 0 for value in phases.values())
    assert sum(phases.values()) <= seconds["total"] == finished.result["total_seconds"]
    assert list(seconds["final_probe_rows"]) == list(finished.result["probe"])
    assert sum(seconds["final_probe_rows"].values()) == pytest.approx(seconds["final_probe"])
    steps = seconds["first_step"] + seconds["training"]
    assert steps == pytest.approx(finished.result["metrics"]["training_seconds"])


def test_a_run_that_is_given_up_after_its_last_step_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pretraining.run

    def give_up(self: Pretraining) -> None:
        self.stop_file.touch()
        run(self)

    monkeypatch.setattr(Pretraining, "run", give_up)
    outcome = start_run(load_tiny(tmp_path, "probe.every_epochs=3"), tmp_path / "runs", [])
    assert outcome.result["status"] == "FINISHED"
    with pytest.raises(RunPruned, match="step 5"):
        start_run(load_tiny(tmp_path, "probe.every_epochs=1"), tmp_path / "runs", [])


def test_the_clock_of_training_stands_still_after_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Pretraining] = []
    run = Pretraining.run

    def remember(self: Pretraining) -> None:
        seen.append(self)
        run(self)

    monkeypatch.setattr(Pretraining, "run", remember)
    outcome = start_run(load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs", [])
    clock = seen[0].state.clock
    assert clock.seconds() == clock.seconds() == outcome.result["metrics"]["training_seconds"]


def test_resuming_a_finished_run_shows_its_result_and_changes_nothing(
    finished: RunOutcome, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.folder.result.read_bytes()
    outcome = resume_run(finished.folder, None, [])
    assert outcome.result == finished.result
    assert finished.folder.result.read_bytes() == before
    assert "already finished" in capsys.readouterr().out


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work_module, "final_evaluation", interrupt)
    with pytest.raises(RunInterrupted, match="jepa-lab run --resume") as caught:
        start_run(load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs", [])
    assert caught.value.exit_code == 130


def test_a_masker_that_leaves_no_target_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    @MASKERS.register("nothing_for_the_test", summary="no target", source="test")
    class Nothing(Masker):
        """Everything is context."""

        num_target_blocks = 1
        max_context_patches = 16
        max_target_patches = 0

        def sample(self, batch_size: int, generator: torch.Generator) -> Masks:
            context = torch.arange(16).expand(batch_size, 1, -1)
            return Masks(Patches(context), Patches(torch.zeros(batch_size, 1, 0, dtype=torch.int64)))

    rebuild_schema()
    with pytest.raises(ConfigError, match=r"no target patch on a grid of 4x4"):
        start_run(load_tiny(tmp_path, "masker=nothing_for_the_test"), tmp_path / "runs", [])
    assert not (tmp_path / "runs").exists()


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
    outcome = start_run(load_tiny(tmp_path, "training.epochs=1"), tmp_path / "runs", [])
    sys.stdout.close()
    assert outcome.result["status"] == "FINISHED"
