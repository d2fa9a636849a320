"""What a run keeps of its probes' predictions, and which images they are about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_lab.build import probe_image_size
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.base import ImageSplit
from jepa_lab.probes.predictions import Predictions
from jepa_lab.probes.splits import ProbeSplits, labels_of
from jepa_lab.runs.predictions import RunPredictions, SplitImages


class PredictedScore(NamedTuple):
    """A score's predictions, and the end of their name in the file: row, probe, and the score's key if any."""

    name: str
    predictions: Predictions


def collected(
    scores: Mapping[str, PredictedScore], splits: ProbeSplits, images: Mapping[str, SplitImages]
) -> RunPredictions:
    """The predictions of all rows and probes, with the true labels.

    Args:
        scores: by what the flat names of their accuracies begin with. images: of `images_of_splits`.
    """
    metrics: dict[str, str] = {}
    tensors: dict[str, np.ndarray] = {}
    for split, part in _parts(splits).items():
        positions = torch.arange(len(part)) if part.positions is None else part.positions
        tensors[f"{split}/positions"] = positions.cpu().numpy()
        if part.labels is not None:
            tensors[f"{split}/labels"] = labels_of(part).numpy()
        for prefix, score in scores.items():
            predicted = getattr(score.predictions, split)
            if predicted is not None:
                tensors[f"{split}/{score.name}"] = predicted
                metrics[f"{prefix}{split}_accuracy"] = f"{split}/{score.name}"
    return RunPredictions(splits.class_names, images, metrics, tensors)


def images_of_splits(pipeline: Pipeline, content: str, splits: ProbeSplits) -> dict[str, SplitImages]:
    """Where the images of each split are from, whatever size they are probed at.

    Args:
        content: digest of the data set's pixels.
    """
    source = pipeline.data if pipeline.probe.data is None else pipeline.probe.data
    dataset = json.dumps(source.dataset.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.sha256(dataset.encode()).hexdigest()
    return {name: SplitImages(digest, content, probe_image_size(pipeline)) for name in _parts(splits)}


def digest_of(values: Tensor) -> str:
    """SHA-256 of a tensor on the CPU."""
    return hashlib.sha256(values.contiguous().numpy().data).hexdigest()


def _parts(splits: ProbeSplits) -> dict[str, ImageSplit]:
    parts = {"validation": splits.validation, "test": splits.test}
    return {name: part for name, part in parts.items() if part is not None}
