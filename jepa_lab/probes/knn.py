"""The k-NN probe: a vote of the nearest images by cosine similarity, with nothing to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import Key, Problem
from jepa_lab.probes.arrays import CPU, double_device
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.neighbors import Neighbours, NeighbourSearch
from jepa_lab.probes.predictions import Predictions, accuracy_of
from jepa_lab.probes.scores import wilson_interval
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams

NEIGHBORS = (10, 20, 100, 200)
"""What the validation split chooses from; those of Caron et al. 2021."""

_TIE = 1e-9
"""Votes that differ by less of one image's vote are a tie."""


class KnnParams(ComponentParams):
    """How many neighbours vote, and how."""

    neighbors: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Neighbours that vote. Null: the validation split chooses 10, 20, 100 or 200, as far as there are "
        "so many training images.",
    )
    vote: Literal["similarity", "equal", "scikit_learn"] = Field(
        "similarity",
        description="A neighbour counts exp(cosine similarity / temperature), or all count the same (equal); a tie is "
        "drawn. scikit_learn: all count the same, and the lowest label wins a tie, which favours low labels.",
    )
    temperature: float = Field(
        0.07, gt=0, description="How fast a neighbour's vote falls with its distance; used by vote similarity alone."
    )
    standardize: bool = Field(
        False,
        strict=True,
        description="Standardise each feature by the images that neighbours are searched among, before similarities "
        "are computed.",
    )


@dataclass(frozen=True)
class KnnResult:
    """What the k-NN probe found.

    Attributes:
        neighbors: given, or chosen on the validation split, where the smaller of two equally good numbers wins.
        validation_accuracy: neighbours from the training split. Where it chose the number it flatters by a little.
        validation_accuracy_by_neighbors: (number, accuracy) of every number that was tried, in increasing order.
        test_accuracy: neighbours from training + validation, the images that the logistic probe's last fit sees too;
            None without a test split.
        predictions: with the number of neighbours that was chosen.
    """

    neighbors: int
    validation_accuracy: float
    validation_accuracy_by_neighbors: tuple[tuple[int, float], ...]
    test_accuracy: float | None
    predictions: Predictions

    def details(self) -> dict[str, Any]:
        """As JSON values, without the predictions."""
        return {name: value for name, value in asdict(self).items() if name != "predictions"}


@PROBES.register(
    "knn",
    summary="vote of the nearest training images by cosine similarity, nothing to fit",
    source="Wu et al. 2018, arXiv:1805.01978, sec. 3.4, with the numbers of neighbours of Caron et al. 2021, "
    "arXiv:2104.14294, app. F, of which the validation split chooses one here",
)
class Knn(Probe):
    """Reads off the features themselves how well they tell classes apart."""

    Params = KnnParams
    title = "a vote of the nearest neighbours"
    uses_seed = False
    params: KnnParams

    @classmethod
    def check(cls, params: KnnParams, known: ProbeSplits) -> Problem | None:
        if params.neighbors is None or params.neighbors <= len(known.train):
            return None
        return Problem(
            Key("neighbors"),
            f" must be at most the number of training images ({len(known.train)}), got {params.neighbors}; lower it, "
            "or probe with more images",
        )

    def run(self, subject: Subject) -> ProbeOutcome:
        num_classes = len(subject.splits.class_names)
        with subject.bounded_features() as splits:
            arguments = (splits.train, splits.validation, splits.test, self.params, num_classes)
            result = knn_probe(*arguments, double_device(subject.device))
        interval = None
        if splits.test is not None and result.test_accuracy is not None:
            num_test = len(splits.test[1])
            interval = wilson_interval(round(result.test_accuracy * num_test), num_test)
        score = Score(result.validation_accuracy, result.test_accuracy, test_interval=interval)
        choice = f"{result.neighbors} neighbours" if self.params.neighbors is None else ""
        return ProbeOutcome((score,), result.details(), choice=choice, predictions={"": result.predictions})


def knn_probe(
    train: Labelled,
    validation: Labelled,
    test: Labelled | None,
    params: KnnParams,
    num_classes: int,
    device: torch.device = CPU,
) -> KnnResult:
    """Classify each image by the vote of its nearest neighbours.

    Args:
        device: that the similarities are computed on; it has double precision.
    """
    tried = candidates(params.neighbors, len(train[1]))
    search = NeighbourSearch((train,), params.standardize, device)
    predicted = _predict(search, validation[0], tried, params, num_classes)  # [K, n]
    accuracies = [accuracy_of(each, validation[1].numpy()) for each in predicted]
    best = max(range(len(tried)), key=lambda index: (accuracies[index], -index))
    test_accuracy = tested = None
    if test is not None:
        both = NeighbourSearch((train, validation), params.standardize, device)
        (tested,) = _predict(both, test[0], tried[best : best + 1], params, num_classes)
        test_accuracy = accuracy_of(tested, test[1].numpy())
    by_neighbors = tuple(zip(tried, accuracies, strict=True))
    return KnnResult(tried[best], accuracies[best], by_neighbors, test_accuracy, Predictions(predicted[best], tested))


def candidates(neighbors: int | None, num_train: int) -> tuple[int, ...]:
    """The numbers of neighbours to choose from: the given one, or `NEIGHBORS`; all images where they are fewer."""
    if neighbors is not None:
        assert neighbors <= num_train, "see Knn.check"
        return (neighbors,)
    return tuple(number for number in NEIGHBORS if number <= num_train) or (num_train,)


def _predict(
    search: NeighbourSearch, queries: Tensor, numbers: Sequence[int], params: KnnParams, num_classes: int
) -> np.ndarray:
    """The label that gets most votes for each query, [K, q] int64: one row for each number of neighbours."""
    parts: list[Tensor] = []
    generator = build_generator(0, "ties of labels")
    for found in search.of(queries, numbers[-1]):
        lots = torch.rand(len(found.labels), num_classes, dtype=torch.float64, generator=generator).to(search.device)
        rows = []
        for number in numbers:
            nearest = Neighbours(found.similarities[:, :number], found.labels[:, :number])
            votes = count_votes(nearest, num_classes, params)  # [q, num_classes]
            rows.append(votes.argmax(dim=1) if params.vote == "scikit_learn" else (votes + _TIE * lots).argmax(dim=1))
        parts.append(torch.stack(rows).cpu())
    return torch.cat(parts, dim=1).numpy()


def count_votes(nearest: Neighbours, num_classes: int, params: KnnParams) -> Tensor:
    """The votes for each class, [q, num_classes] in double precision."""
    if params.vote == "similarity":
        # Against the nearest, whose vote is 1: at a low temperature all would be 0.
        behind = nearest.similarities - nearest.similarities.max(dim=1, keepdim=True).values
        weights = (behind / params.temperature).exp()
    else:
        weights = torch.ones_like(nearest.similarities)
    votes = torch.zeros(len(weights), num_classes, dtype=weights.dtype, device=weights.device)
    return votes.scatter_add_(1, nearest.labels, weights)
