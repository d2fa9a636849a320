"""Measuring a model: at probe epochs (validation split, fixed images and masks), and at the end (test split, once)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jepa_lab.build import PreparedData, build_model, build_sampler
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import to_tensor
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.figures.confusion import draw_confusion
from jepa_lab.models.ijepa import IJepa
from jepa_lab.probes.evaluation import EncoderEvaluation, ProbeSplits, evaluate_encoder, evaluate_raw_pixels
from jepa_lab.probes.features import extract_features, patch_features
from jepa_lab.probes.logistic import online_probe
from jepa_lab.probes.monitors import CollapseDetector, feature_std, image_variance_ratio, rankme
from jepa_lab.randomness import build_generator
from jepa_lab.training.devices import Compute
from jepa_lab.training.pretrain import Evaluation

logger = logging.getLogger(__name__)

_MONITORED_IMAGES = 512


def probed_encoder(model: IJepa, pipeline: Pipeline) -> nn.Module:
    """The encoder that `probe.encoder` chooses."""
    return {"target": model.target_encoder, "context": model.context_encoder}[pipeline.probe.encoder]


def probe_splits(data: PreparedData) -> ProbeSplits | None:
    """The splits that the probe works on, or None for images without labels.

    Raises:
        DataError: a class is missing from a split.
    """
    if data.train.labels is None:
        return None
    return ProbeSplits(data.train, data.validation, data.test, data.class_names, data.mean, data.std)


class OnlineEvaluation:
    """The evaluation at probe epochs; it never sees the test split.

    Validation loss, RankMe, standard deviation and image variance ratio are measured on the same images with the
    same masks at every epoch and for every seed, so that curves can be compared.
    """

    def __init__(
        self, pipeline: Pipeline, model: IJepa, data: PreparedData, probe_data: PreparedData, compute: Compute
    ) -> None:
        self.pipeline, self.model, self.data, self.compute = pipeline, model, data, compute
        self.detector = CollapseDetector(pipeline.collapse)
        self.splits = probe_splits(probe_data)
        # Files often come sorted by class: the first images would be those of one class.
        chosen = torch.randperm(
            len(data.validation), generator=build_generator(pipeline.data.split_seed, "monitored images")
        )
        # Few enough to be held in memory, wherever the others are.
        self.images = to_tensor(data.validation.images[chosen[:_MONITORED_IMAGES].sort().values])
        sampler, generator = build_sampler(pipeline), build_generator(pipeline.data.split_seed, "validation masks")
        # In batches of the training's size, on which `prefix` and `subset` depend.
        self.masks = [sampler.sample(len(part), generator) for part in self._parts()]

    @property
    def collapsed(self) -> bool:
        """Whether the features have been judged collapsed."""
        return self.detector.collapsed

    def evaluate(self) -> Evaluation:
        """Measure the model as it is now; draws nothing from the run's generators."""
        encoder = probed_encoder(self.model, self.pipeline)
        arguments = (self.data.mean, self.data.std)
        batch_size, device = self.pipeline.probe.batch_size, self.compute.device
        patches = patch_features(encoder, self.images, *arguments, batch_size, device)  # [n, N, D]
        pooled = patches.mean(dim=1)  # [n, D]
        loss, ratio, rank = self._validation_loss(), image_variance_ratio(patches), rankme(pooled)
        metrics = {
            "validation/loss": loss,
            "monitor/rankme": rank,
            "monitor/feature_std": feature_std(pooled),
            "monitor/image_variance_ratio": ratio,
        }
        status = self.detector.observe(validation_loss=loss, image_variance_ratio=ratio, rankme=rank)
        metrics["monitor/collapsed"] = float(self.collapsed)
        accuracy = self._online_probe(encoder)
        if accuracy is not None:
            metrics["probe/online_validation_accuracy"] = accuracy
        warning = None
        if status != "healthy":
            warning = (
                f"the features hardly depend on the image any more (image variance ratio {ratio:.2g}, "
                f"RankMe {rank:.3g}) while the loss falls ({loss:.3g}): {status}"
            )
        return Evaluation(metrics, accuracy, warning, self.collapsed)

    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.images.split(self.pipeline.training.batch_size)

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Mean loss over the valid target patches of the monitored images."""
        device = self.compute.device
        mean, std = self.data.mean.to(device), self.data.std.to(device)
        count = torch.stack([self.model.count_targets(masks) for masks in self.masks]).sum(dim=0).to(device)
        total = torch.zeros((), device=device)
        for part, masks in zip(self._parts(), self.masks, strict=True):
            images = normalize(to_float(part.to(device)), mean, std)
            with self.compute.autocast():
                total += self.model(images, masks.to(device), count).loss.float()
        return total.item()

    def _online_probe(self, encoder: nn.Module) -> float | None:
        if self.splits is None:
            return None
        settings = self.pipeline.probe

        def labelled(split: ImageSplit) -> tuple[torch.Tensor, torch.Tensor]:
            features = extract_features(
                encoder,
                split.images,
                self.data.mean,
                self.data.std,
                settings.num_layers,
                settings.batch_size,
                self.compute.device,
            )
            assert split.labels is not None, "ProbeSplits has labels"
            return features, split.labels

        assert self.splits is not None
        return online_probe(labelled(self.splits.online_train(settings)), labelled(self.splits.validation))

    def state(self) -> dict[str, Any]:
        """The collapse detector's memory."""
        return self.detector.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's memory."""
        self.detector.restore(state)


def final_evaluation(
    pipeline: Pipeline, model: IJepa, probe_data: PreparedData, compute: Compute, figures: Path
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Probe the trained encoder and the controls; the test split is scored once each, or not at all.

    Args:
        figures: folder for the confusion matrix.
    Returns:
        Flat summary numbers, and the details for result.json: `probe` by row, or `probe_skipped`.
    """
    splits = probe_splits(probe_data)
    if splits is None:
        reason = "the probe was skipped: the images have no labels; name labelled ones under probe.data"
        logger.info(reason)
        return {}, {"probe": None, "probe_skipped": reason}
    if not pipeline.probe.score_test:
        splits = replace(splits, test=None)
    untrained = build_model(pipeline, probe_data.train.images.shape[1]).to(compute.device)
    rows: dict[str, EncoderEvaluation] = {
        "trained": evaluate_encoder(probed_encoder(model, pipeline), splits, pipeline.probe, compute.device),
        "random_encoder": evaluate_encoder(probed_encoder(untrained, pipeline), splits, pipeline.probe, compute.device),
        "raw_pixels": evaluate_raw_pixels(splits, pipeline.probe),
    }
    summary: dict[str, float | None] = {}
    prefixes = {"trained": "probe", "random_encoder": "random_encoder", "raw_pixels": "raw_pixels"}
    for name, evaluation in rows.items():
        prefix = prefixes[name]
        summary[f"{prefix}/validation_accuracy"] = evaluation.logistic.validation_accuracy
        summary[f"{prefix}/test_accuracy"] = evaluation.logistic.test_accuracy
        summary[f"{prefix}/knn_validation_accuracy"] = evaluation.knn.validation_accuracy
        summary[f"{prefix}/knn_test_accuracy"] = evaluation.knn.test_accuracy
    trained = rows["trained"].logistic
    if trained.confusion is not None and trained.test_accuracy is not None:
        draw_confusion(trained.confusion, splits.class_names, trained.test_accuracy, figures / "confusion.png")
    return summary, {"probe": {name: row.to_dict() for name, row in rows.items()}}
