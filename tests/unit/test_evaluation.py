"""The evaluation at probe epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jepa_lab.build import PreparedData, build_dataset, build_model, prepare_data, prepare_probe_data
from jepa_lab.data.base import ImageSplit
from jepa_lab.evaluation import OnlineEvaluation, final_evaluation, half_precision, probed_encoder
from jepa_lab.grid import Grid
from jepa_lab.probes.base import Probe, ProbeOutcome
from jepa_lab.probes.knn import Knn
from jepa_lab.probes.linear_sgd import LinearSgd
from jepa_lab.probes.logistic import Logistic
from jepa_lab.probes.subject import Subject
from jepa_lab.runs.predictions import RunPredictions, ScoredImages, read_predictions
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
    assert all(torch.equal(one.context.indices, two.context.indices) for one, two in pairs)


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


@pytest.mark.parametrize("position", ["sincos", "learned", "rope"])
def test_the_encoder_is_probed_at_another_resolution_on_larger_images_of_the_same_splits(
    tmp_path: Path, position: str
) -> None:
    pipeline = load_tiny(tmp_path, "probe.image_size=12", f"encoder.position={position}").pipeline
    data = prepare_data(pipeline)
    probe_data = prepare_probe_data(pipeline, data)
    assert data.train.images.shape[2:] == (8, 8)
    assert probe_data.train.images.shape[2:] == (12, 12)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(data, split).labels, getattr(probe_data, split).labels)
    assert torch.equal(data.mean, probe_data.mean)
    assert torch.equal(data.std, probe_data.std)
    model = build_model(pipeline, 1)
    encoder = probed_encoder(model, pipeline)
    assert encoder.grid == Grid(6, 6)
    assert model.target_encoder.grid == Grid(4, 4)
    assert encoder.patch_embed.proj.weight is model.target_encoder.patch_embed.proj.weight
    summary, details = final_evaluation(pipeline, model, probe_data, COMPUTE, tmp_path)
    plain, _ = final_evaluation(
        load_tiny(tmp_path, f"encoder.position={position}").pipeline, model, data, COMPUTE, tmp_path
    )
    assert summary.keys() == plain.keys()
    assert summary["raw_pixels/test_accuracy"] != plain["raw_pixels/test_accuracy"]
    trained = [details["probe"]["trained"]["logistic"]["num_train"], len(data.train)]
    assert trained[0] == trained[1]


def test_the_online_probe_works_at_another_resolution_and_the_monitors_stay_at_that_of_pretraining(
    tmp_path: Path,
) -> None:
    found = []
    for overrides in ((), ("probe.image_size=12",)):
        pipeline = load_tiny(tmp_path, *overrides).pipeline
        data = prepare_data(pipeline)
        model = build_model(pipeline, 1)
        evaluation = OnlineEvaluation(pipeline, model, data, prepare_probe_data(pipeline, data), COMPUTE)
        found.append(evaluation.evaluate().metrics)
    assert found[0].pop("probe/online_validation_accuracy") != found[1].pop("probe/online_validation_accuracy")
    assert found[0] == found[1]


def test_every_row_is_measured_by_the_same_probes_and_only_encoders_by_those_that_need_one(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path, "probe.additional=[{name: layerwise, c_grid: [0.1]}, knn]").pipeline
    data = prepare_data(pipeline)
    summary, details = final_evaluation(pipeline, build_model(pipeline, 1), data, COMPUTE, tmp_path / "figures")
    rows = details["probe"]
    assert list(details["probe_titles"]) == ["logistic", "layerwise", "knn"]
    assert list(rows["trained"]) == list(rows["random_encoder"]) == ["logistic", "layerwise", "knn"]
    assert list(rows["raw_pixels"]) == ["logistic", "knn"]
    assert rows["trained"] == rows["random_encoder"], "an untrained model is the control"
    assert summary["probe/validation_accuracy"] == rows["trained"]["logistic"]["validation_accuracy"]
    assert summary["raw_pixels/knn_test_accuracy"] == rows["raw_pixels"]["knn"]["test_accuracy"]
    assert "probe/layerwise_depth_1_validation_accuracy" in summary
    assert [file.name for file in (tmp_path / "figures").iterdir()] == ["layerwise.png"]


def test_a_method_that_pixels_cannot_have_leaves_their_headline_empty(tmp_path: Path) -> None:
    overrides = ["probe.method={name: finetune, epochs: 1}", "probe.additional=[]"]
    pipeline = load_tiny(tmp_path, *overrides).pipeline
    data = prepare_data(pipeline)
    summary, details = final_evaluation(pipeline, build_model(pipeline, 1), data, COMPUTE, tmp_path)
    assert summary["raw_pixels/validation_accuracy"] is None
    assert summary["raw_pixels/test_accuracy"] is None
    assert summary["probe/validation_accuracy"] is not None
    assert details["probe"]["raw_pixels"] == {}


def test_without_scoring_the_test_split_every_test_number_is_empty(tmp_path: Path) -> None:
    probes = "probe.additional=[{name: low_shot, shots: [1], draws: 1, c_grid: [0.1]}, knn]"
    pipeline = load_tiny(tmp_path, "probe.score_test=false", probes).pipeline
    data = prepare_data(pipeline)
    assert data.test is not None
    summary, _ = final_evaluation(pipeline, build_model(pipeline, 1), data, COMPUTE, tmp_path)
    tested = {name: value for name, value in summary.items() if "test_" in name}
    assert len(tested) == 9
    assert set(tested.values()) == {None}
    assert all(value is not None for name, value in summary.items() if name not in tested)


def probed(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """The rows of a final evaluation of an untrained model."""
    pipeline = load_tiny(tmp_path, *overrides).pipeline
    data = prepare_data(pipeline)
    probe_data = prepare_probe_data(pipeline, data)
    return final_evaluation(pipeline, build_model(pipeline, 1), probe_data, COMPUTE, tmp_path)[1]["probe"]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the probes that have measured raw pixels; nothing is kept of other tests."""
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "cache"))
    names: list[str] = []
    for kind in (Logistic, Knn, LinearSgd):
        run = kind.run

        def counted(self: Probe, subject: Subject, run: Any = run) -> ProbeOutcome:
            if subject.encoder is None:
                names.append(type(self).__name__)
            return run(self, subject)

        monkeypatch.setattr(kind, "run", counted)
    return names


def test_raw_pixels_are_measured_once_for_all_seeds_and_encoders(tmp_path: Path, measured: list[str]) -> None:
    first = probed(tmp_path)
    assert measured == ["Logistic", "Knn"]
    second = probed(tmp_path, "seed=1", "encoder.size.embed_dim=8", "probe.encoder=context", "training.epochs=9")
    assert measured == ["Logistic", "Knn"]
    assert second["raw_pixels"] == first["raw_pixels"]
    assert second["trained"] != first["trained"]


def test_raw_pixels_that_were_kept_are_those_that_would_be_measured(
    tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    probed(tmp_path)
    kept = probed(tmp_path)
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "another"))
    again = probed(tmp_path)
    assert measured == ["Logistic", "Knn"] * 2
    assert json.dumps(kept) == json.dumps(again)


@pytest.mark.parametrize(
    "override",
    [
        "data.split_seed=1",
        "data.validation_fraction=0.5",
        "data.max_images=150",
        "data.image_size=12",
        "probe.image_size=12",
        "probe.crop_fraction=0.5",
        "probe.score_test=false",
        "probe.data={dataset: digits, max_images: 120}",
    ],
)
def test_raw_pixels_of_other_images_or_splits_are_measured_again(
    tmp_path: Path, measured: list[str], override: str
) -> None:
    probed(tmp_path)
    probed(tmp_path, override)
    assert measured == ["Logistic", "Knn"] * 2


def test_only_the_probe_whose_parameters_change_measures_raw_pixels_again(tmp_path: Path, measured: list[str]) -> None:
    probed(tmp_path)
    probed(tmp_path, "probe.additional=[{name: knn, neighbors: 6}]")
    assert measured == ["Logistic", "Knn", "Knn"]


def test_a_probe_that_draws_measures_raw_pixels_for_every_seed(tmp_path: Path, measured: list[str]) -> None:
    sgd = "probe.method={name: linear_sgd, epochs: 1}"
    for seed in (0, 1, 1):
        probed(tmp_path, sgd, f"seed={seed}")
    assert measured == ["LinearSgd", "Knn", "LinearSgd"]


@pytest.mark.parametrize(
    ("device", "precision", "half"),
    [("cuda", "bf16", True), ("cuda", "fp32", False), ("cuda", "fp16", False), ("cpu", "bf16", False)],
)
def test_frozen_encoders_run_in_half_precision_on_a_gpu_that_trains_in_bfloat16(
    device: str, precision: str, half: bool
) -> None:
    assert (half_precision(Compute(torch.device(device), precision, False)) is not None) == half


def test_the_precision_that_is_chosen_is_that_of_the_online_probe_and_of_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = []

    def half() -> torch.autocast:
        entered.append(True)
        return torch.autocast("cpu", dtype=torch.bfloat16)

    monkeypatch.setattr("jepa_lab.evaluation.half_precision", lambda compute: half)
    pipeline = load_tiny(tmp_path, "probe.batch_size=40").pipeline
    data = prepare_data(pipeline)
    model = build_model(pipeline, 1)
    OnlineEvaluation(pipeline, model, data, data, COMPUTE).evaluate()
    assert len(entered) == 1 + 3 + 1, "the choice, 120 training images, 40 for validation; the monitors are in full"
    entered.clear()
    final_evaluation(pipeline, model, data, COMPUTE, tmp_path)
    assert len(entered) == 2 * (1 + 3 + 1 + 4), "and 160 test images; no pass for raw pixels"


def correct(found: RunPredictions, metric: str) -> np.ndarray:
    scored = found.scored(metric)
    assert scored is not None
    return scored.correct


def test_predictions_of_every_row_and_probe_are_kept_with_the_labels(tmp_path: Path) -> None:
    probes = "probe.additional=[{name: layerwise, c_grid: [0.1]}, knn, {name: low_shot, shots: [1, 5], draws: 2}]"
    pipeline = load_tiny(tmp_path, probes).pipeline
    data = prepare_data(pipeline)
    file = tmp_path / "predictions.safetensors"
    arguments = (pipeline, build_model(pipeline, 1), data, COMPUTE, tmp_path)
    summary, details = final_evaluation(*arguments, predictions=file)
    found = read_predictions(tmp_path, details["predictions"])
    scored = {name for name, value in summary.items() if value is not None}
    assert set(found.metrics) == scored
    for name in scored:
        assert correct(found, name).mean() == pytest.approx(summary[name], abs=1e-12)
    assert {"validation/labels", "test/labels", "test/raw_pixels/knn"} <= set(found.tensors)
    assert found.tensors["validation/trained/low_shot/5"].shape == (2, len(data.validation))
    assert found.class_names == data.class_names
    final_evaluation(*arguments, predictions=tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes(), "raw pixels were kept from the first time"


def test_without_scoring_the_test_split_no_test_prediction_is_kept(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path, "probe.score_test=false").pipeline
    data = prepare_data(pipeline)
    arguments = (pipeline, build_model(pipeline, 1), data, COMPUTE, tmp_path)
    _, details = final_evaluation(*arguments, predictions=tmp_path / "p")
    found = read_predictions(tmp_path, details["predictions"])
    assert list(found.images) == ["validation"]
    assert all(name.startswith("validation/") for name in found.tensors)


def images_of(tmp_path: Path, *overrides: str) -> dict[str, ScoredImages]:
    """The images that an untrained model was scored on, by split."""
    pipeline = load_tiny(tmp_path, "probe.additional=[]", *overrides).pipeline
    data = prepare_data(pipeline)
    probe_data = prepare_probe_data(pipeline, data)
    arguments = (pipeline, build_model(pipeline, 1), probe_data, COMPUTE, tmp_path)
    _, details = final_evaluation(*arguments, predictions=tmp_path / "p")
    found = read_predictions(tmp_path, details["predictions"])
    scored = {split: found.scored(f"raw_pixels/{split}_accuracy") for split in ("validation", "test")}
    return {split: each for split, each in scored.items() if each is not None}


def test_images_are_told_apart_by_what_was_chosen_and_not_by_their_size(tmp_path: Path) -> None:
    own = images_of(tmp_path)
    larger = images_of(tmp_path, "probe.image_size=12", "seed=3")
    assert own["test"].images != larger["test"].images
    assert all(own[name].are_those_of(larger[name]) for name in own)
    more, others = images_of(tmp_path, "data.validation_fraction=0.5"), images_of(tmp_path, "data.split_seed=1")
    assert not own["validation"].are_those_of(more["validation"])
    assert not own["validation"].are_those_of(others["validation"])
    assert own["test"].are_those_of(more["test"])


def test_the_positions_of_images_find_them_in_the_data_set_again(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path).pipeline
    data = prepare_data(pipeline)
    whole = build_dataset(pipeline.data, pipeline.data.image_size).load().train
    assert isinstance(whole.images, torch.Tensor)
    assert data.validation.positions is not None
    assert torch.equal(whole.images[data.validation.positions], data.validation.images)
