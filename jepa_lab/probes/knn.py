"""The k-NN probe: a vote of the nearest images by cosine similarity, with nothing to fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from pydantic import Field

from jepa_lab.errors import Key, Problem
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.scores import wilson_interval
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import ComponentParams


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
        result = knn_probe(splits.train, splits.validation, splits.test, self.params.neighbors)
        interval = None
        if splits.test is not None and result.test_accuracy is not None:
            num_test = len(splits.test[1])
            interval = wilson_interval(round(result.test_accuracy * num_test), num_test)
        score = Score(result.validation_accuracy, result.test_accuracy, test_interval=interval)
        return ProbeOutcome((score,), asdict(result))


def knn_probe(train: Labelled, validation: Labelled, test: Labelled | None, neighbors: int) -> KnnResult:
    """Classify each image by the vote of its nearest neighbours."""
    assert neighbors <= len(train[1]), "see Knn.check"
    test_accuracy = None
    if test is not None:
        both = (torch.cat((train[0], validation[0])), torch.cat((train[1], validation[1])))
        test_accuracy = _accuracy(both, test, neighbors)
    return KnnResult(neighbors, _accuracy(train, validation, neighbors), test_accuracy)


def _accuracy(bank: Labelled, queries: Labelled, neighbors: int) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    # On unit vectors Euclidean distance orders as cosine does. scikit-learn's own cosine metric subtracts single
    # precision similarities from 1: features that differ by a thousandth of their size came out 10 points worse.
    classifier = KNeighborsClassifier(neighbors, algorithm="brute", metric="euclidean")
    classifier.fit(_unit_vectors(bank), bank[1].numpy())
    return float(classifier.score(_unit_vectors(queries), queries[1].numpy()))


def _unit_vectors(labelled: Labelled) -> np.ndarray:
    """Features scaled to length 1, [n, D']; zeros stay zeros."""
    from sklearn.preprocessing import normalize

    return normalize(labelled[0].numpy())
