"""The k-NN probe: a vote of the nearest images by cosine similarity, with nothing to fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from jepa_lab.errors import ConfigError
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.settings import ProbeSettings


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

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check_neighbors(settings: ProbeSettings, num_train: int) -> None:
    """Refuse more neighbours than training images, which needs no features to see.

    Raises:
        ConfigError: if there are fewer training images than neighbours.
    """
    if settings.knn_neighbors > num_train:
        raise ConfigError(
            f"probe.knn_neighbors must be at most the number of training images ({num_train}), "
            f"got {settings.knn_neighbors}; lower it, or probe with more images"
        )


def knn_probe(train: Labelled, validation: Labelled, test: Labelled | None, settings: ProbeSettings) -> KnnResult:
    """Classify each image by the vote of its `settings.knn_neighbors` nearest neighbours.

    Raises:
        ConfigError: if there are fewer training images than neighbours.
    """
    check_neighbors(settings, len(train[1]))
    test_accuracy = None
    if test is not None:
        both = (torch.cat((train[0], validation[0])), torch.cat((train[1], validation[1])))
        test_accuracy = _accuracy(both, test, settings.knn_neighbors)
    return KnnResult(settings.knn_neighbors, _accuracy(train, validation, settings.knn_neighbors), test_accuracy)


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
