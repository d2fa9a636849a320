"""The linear probe by stochastic gradient descent, for data too large for logistic regression in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from jepa_lab.data.order import BatchOrder
from jepa_lab.errors import Key
from jepa_lab.figures.confusion import draw_confusion
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.feature_file import column_statistics, stored_features
from jepa_lab.probes.predictions import Predictions
from jepa_lab.probes.scores import NO_TEST, score_predictions
from jepa_lab.probes.splits import labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams, broken_rule

_MOMENTUM = 0.9
_SMALLEST_STD = 1e-12
"""A feature that is the same for all images stays zero rather than becoming rounding errors blown up."""


class LinearSgdParams(ComponentParams):
    """The grid of learning rates and the length of the descent."""

    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        min_length=1,
        description="Peak learning rates, increasing; a classifier is trained with each, all on the same batches, and "
        "the validation split chooses one.",
    )
    epochs: int = Field(50, ge=1, le=10_000, strict=True, description="Passes over the features.")
    batch_size: int = Field(256, ge=1, strict=True, description="Images in a step of the descent.")

    @model_validator(mode="after")
    def _check(self) -> LinearSgdParams:
        if any(low >= high for low, high in itertools.pairwise(self.learning_rates)):
            raise broken_rule(
                Key("learning_rates"), f" must be increasing without repetition, got {self.learning_rates}"
            )
        return self


@PROBES.register(
    "linear_sgd",
    summary="linear classifier by SGD on features in a file, for data too large for logistic regression in memory",
    source="the grid of learning rates trained side by side of Oquab et al. 2023, arXiv:2304.07193, app. B.3",
)
class LinearSgd(Probe):
    """Extracts features once into a file and descends on mini-batches of it, with momentum 0.9 and half a cosine.

    As in the logistic probe features are standardised by the images that are fitted on, the validation split makes
    the choice, and the classifier that is scored on the test split is fitted on training + validation.
    """

    Params = LinearSgdParams
    params: LinearSgdParams
    title = "a linear classifier by SGD on frozen features"

    def run(self, subject: Subject) -> ProbeOutcome:
        splits = subject.splits
        parts = [part for part in (splits.train, splits.validation, splits.test) if part is not None]
        batches = itertools.chain.from_iterable(subject.feature_batches(part.images) for part in parts)
        labels = torch.cat([labels_of(part) for part in parts])
        train, fitted = len(splits.train), len(splits.train) + len(splits.validation)
        with stored_features(batches, subject.scratch) as features:
            search = _Descent(self.params, subject, features[:train], labels[:train])
            heads = search.fit(self.params.learning_rates)
            predictions = search.predict(heads, features[train:fitted])  # [G, n]
            accuracies = (predictions == labels[train:fitted]).double().mean(dim=1).tolist()
            best = max(range(len(accuracies)), key=lambda index: (accuracies[index], -index))
            scores, tested = NO_TEST, None
            if splits.test is not None:
                again = _Descent(self.params, subject, features[:fitted], labels[:fitted])
                last = again.fit(self.params.learning_rates[best : best + 1])
                tested = again.predict(last, features[fitted:])[0].numpy()
                scores = score_predictions(labels[fitted:].numpy(), tested, splits.class_names)
        main = Score(accuracies[best], scores.test_accuracy, test_interval=scores.test_interval)
        details = {
            "learning_rate": self.params.learning_rates[best],
            "validation_accuracy_by_learning_rate": list(zip(self.params.learning_rates, accuracies, strict=True)),
            **vars(scores),
        }
        choice = f"learning rate {self.params.learning_rates[best]:g}" if len(accuracies) > 1 else ""
        found = Predictions(predictions[best].numpy(), tested)
        return ProbeOutcome((main,), details, self._notes(best), choice, {"": found})

    def _notes(self, best: int) -> tuple[str, ...]:
        rates = self.params.learning_rates
        if len(rates) == 1 or 0 < best < len(rates) - 1:
            return ()
        where = "smallest" if best == 0 else "largest"
        return (f"learning rate {rates[best]:g} is the {where} of learning_rates; extend the grid there",)

    def draw(self, outcome: ProbeOutcome, class_names: tuple[str, ...], folder: Path) -> None:
        accuracy = outcome.scores[0].test_accuracy
        if accuracy is not None:
            out = folder / "linear_sgd_confusion.png"
            draw_confusion(outcome.details["confusion"], class_names, accuracy, out)


class _Descent:
    """Linear classifiers of standardised features.

    Args:
        features: [n, D'] float32 to fit on, in memory or mapped. labels: [n] int64.
    """

    def __init__(self, params: LinearSgdParams, subject: Subject, features: np.ndarray, labels: Tensor) -> None:
        self.params, self.features, self.labels = params, features, labels
        self.device, self.seed, self.num_classes = subject.device, subject.seed, len(subject.splits.class_names)
        self.predict_size = subject.batch_size
        mean, std = column_statistics(features)
        self.mean = torch.from_numpy(mean).float().to(self.device)
        self.scale = torch.from_numpy(np.where(std > _SMALLEST_STD, 1 / np.maximum(std, _SMALLEST_STD), 0.0))
        self.scale = self.scale.float().to(self.device)

    def fit(self, learning_rates: tuple[float, ...]) -> nn.ModuleList:
        """One classifier a learning rate; they see the same batches and do not disturb each other."""
        width = self.features.shape[1]
        heads = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, width, self.num_classes, device=self.device) for _ in learning_rates
        )
        for parameter in heads.parameters():
            nn.init.zeros_(parameter)  # the problem is convex: where it begins does not matter
        optimizer = torch.optim.SGD(
            [{"params": head.parameters(), "lr": rate} for head, rate in zip(heads, learning_rates, strict=True)],
            momentum=_MOMENTUM,
        )
        batch_size = min(self.params.batch_size, len(self.features))
        order = BatchOrder(len(self.features), batch_size, build_generator(self.seed, "linear_sgd order"))
        total = self.params.epochs * order.steps_per_epoch
        for step in range(total):
            rows = order.next().sort().values  # in the order of the file
            x, y = self._standardised(self.features[rows.numpy()]), self.labels[rows].to(self.device)
            for group, rate in zip(optimizer.param_groups, learning_rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * step / total)) / 2
            loss = torch.stack([F.cross_entropy(head(x), y) for head in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return heads

    @torch.no_grad()
    def predict(self, heads: nn.ModuleList, features: np.ndarray) -> Tensor:
        """The class of each image by each classifier, [G, n] int64 on the CPU."""
        found = [torch.stack([head(x).argmax(dim=1) for head in heads]).cpu() for x in self._parts(features)]
        return torch.cat(found, dim=1)

    def _parts(self, features: np.ndarray) -> Iterator[Tensor]:
        for start in range(0, len(features), self.predict_size):
            yield self._standardised(np.array(features[start : start + self.predict_size]))

    def _standardised(self, features: np.ndarray) -> Tensor:
        """[b, D'] on the device."""
        return (torch.from_numpy(features).to(self.device) - self.mean) * self.scale
