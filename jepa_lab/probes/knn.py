"""The k-NN probe: a vote of the nearest images by cosine similarity, with nothing to fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import Key, Problem
from jepa_lab.probes.arrays import CPU, double_device
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.scores import wilson_interval
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import ComponentParams

_DISTANCES_AT_ONCE = 1 << 26
"""Distances that are in memory at a time: half a GiB of them."""


@dataclass(frozen=True)
class KnnResult:
    """What the k-NN probe found.

    Attributes:
        validation_accuracy: neighbours from the training split.
        test_accuracy: neighbours from training + validation, the images that the logistic probe's last fit sees too;
            None without a test split.
    """

    neighbors: int
    validation_accuracy: float
    test_accuracy: float | None


@PROBES.register(
    "knn",
    summary="vote of the nearest training images by cosine similarity, nothing to fit",
    source="Wu et al. 2018, arXiv:1805.01978, sec. 3.4; every neighbour counts the same here",
)
class Knn(Probe):
    """Reads off the features themselves how well they tell classes apart."""

    class Params(ComponentParams):
        neighbors: int = Field(20, ge=1, strict=True, description="Neighbours that vote.")

    title = "a vote of the nearest neighbours"
    uses_seed = False
    params: Params

    @classmethod
    def check(cls, params: Params, known: ProbeSplits) -> Problem | None:
        if params.neighbors <= len(known.train):
            return None
        return Problem(
            Key("neighbors"),
            f" must be at most the number of training images ({len(known.train)}), got {params.neighbors}; lower it, "
            "or probe with more images",
        )

    def run(self, subject: Subject) -> ProbeOutcome:
        splits = subject.features
        device = double_device(subject.device)
        result = knn_probe(splits.train, splits.validation, splits.test, self.params.neighbors, device)
        interval = None
        if splits.test is not None and result.test_accuracy is not None:
            num_test = len(splits.test[1])
            interval = wilson_interval(round(result.test_accuracy * num_test), num_test)
        score = Score(result.validation_accuracy, result.test_accuracy, test_interval=interval)
        return ProbeOutcome((score,), asdict(result))


def knn_probe(
    train: Labelled, validation: Labelled, test: Labelled | None, neighbors: int, device: torch.device = CPU
) -> KnnResult:
    """Classify each image by the vote of its nearest neighbours.

    Args:
        device: that the distances are computed on; it has double precision.
    """
    assert neighbors <= len(train[1]), "see Knn.check"
    test_accuracy = None
    if test is not None:
        both = (torch.cat((train[0], validation[0])), torch.cat((train[1], validation[1])))
        test_accuracy = _accuracy(both, test, neighbors, device)
    return KnnResult(neighbors, _accuracy(train, validation, neighbors, device), test_accuracy)


def _accuracy(bank: Labelled, queries: Labelled, neighbors: int, device: torch.device) -> float:
    """Share of the queries whose neighbours' most frequent class, the lowest of several, is theirs."""
    vectors, labels = _unit_vectors(bank[0].to(device)), bank[1].to(device)
    num_classes, lengths = int(labels.max()) + 1, vectors.square().sum(dim=1)  # [n]
    correct, part = 0, max(1, _DISTANCES_AT_ONCE // len(vectors))
    for features, own in zip(queries[0].split(part), queries[1].split(part), strict=True):
        # On unit vectors Euclidean distance orders as cosine does, and rounding of their lengths does not disturb it:
        # features that differ by a thousandth of their size came out 10 points worse by cosines in single precision.
        # |q - v|^2 = |q|^2 - 2 (q v - |v|^2 / 2), of which |q|^2 is the same for all.
        nearness = torch.addmm(-lengths / 2, _unit_vectors(features.to(device)), vectors.T)  # [q, n]
        nearest = labels[nearness.topk(neighbors, dim=1, sorted=False).indices]  # [q, k]
        votes = torch.zeros(len(features), num_classes, dtype=torch.int64, device=device)
        votes.scatter_add_(1, nearest, torch.ones_like(nearest))
        correct += int((votes.argmax(dim=1).cpu() == own).sum())
    return correct / len(queries[1])


def _unit_vectors(features: Tensor) -> Tensor:
    """Features scaled to length 1, [n, D'] in double precision; zeros stay zeros."""
    lengths = torch.linalg.vector_norm(features.double(), dim=1, keepdim=True)
    return features.double() / torch.where(lengths > 0, lengths, 1)
