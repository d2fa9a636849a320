"""The linear probe by stochastic gradient descent, for data too large for logistic regression in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.data.order import BatchOrder
from jepa_lab.errors import Key
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.decorrelation import principal_components
from jepa_lab.probes.feature_file import stored_features
from jepa_lab.probes.grids import OpenGrid
from jepa_lab.probes.heads import LinearHeads, summed_cross_entropy
from jepa_lab.probes.predictions import Predictions
from jepa_lab.probes.rate_search import RateSearch, Setting
from jepa_lab.probes.scores import NO_TEST, score_predictions
from jepa_lab.probes.splits import labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams, broken_rule

RATES = OpenGrid(
    (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    lower=(0.001, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6),
    higher=(3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
)
_MOMENTUM = 0.9

Positive = Annotated[float, Field(gt=0)]


class LinearSgdParams(ComponentParams):
    """The grid of learning rates and ridges, and the length of the descent."""

    learning_rates: tuple[Positive, ...] | None = Field(
        None,
        min_length=1,
        description="Peak learning rates, increasing; a classifier is trained with each, all on the same batches, and "
        "the validation split chooses one. Null: 0.003 to 1, and on from there to at least 3e-6 and at most 1000 while "
        "the best one lies at an end.",
    )
    ridges: tuple[Positive, ...] = Field(
        (1e-5, 1e-3, 0.1, 100.0),
        min_length=1,
        description="How much features are decorrelated, increasing: their principal components are scaled by "
        "sqrt((1 + ridge) / (variance + ridge)). A small ridge whitens; a large one leaves features standardised "
        "alone. Every learning rate is tried with every ridge.",
    )
    epochs: int = Field(50, ge=1, le=10_000, strict=True, description="Passes over the features.")
    batch_size: int = Field(256, ge=1, strict=True, description="Images in a step of the descent.")

    @model_validator(mode="after")
    def _check(self) -> LinearSgdParams:
        for name, values in (("learning_rates", self.learning_rates or ()), ("ridges", self.ridges)):
            if any(low >= high for low, high in itertools.pairwise(values)):
                raise broken_rule(Key(name), f" must be increasing without repetition, got {values}")
        return self


@PROBES.register(
    "linear_sgd",
    summary="linear classifier by SGD on features in a file, for data too large for logistic regression in memory",
    source="the grid of learning rates trained side by side of Oquab et al. 2023, arXiv:2304.07193, app. B.3; features "
    "are decorrelated before, which is not there",
)
class LinearSgd(Probe):
    """Extracts features once into a file and descends on mini-batches of it, with momentum 0.9 and half a cosine.

    As in the logistic probe the validation split makes the choice, and the classifier that is scored on the test split
    is fitted on training + validation. Features are decorrelated by the images that are fitted on: on standardised
    features alone, descent is still far from the solution after any reasonable number of epochs. Of equal accuracies
    the largest ridge wins, and then the smallest rate.
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
            descent = _Descent(self.params, subject, features[:train], labels[:train])
            held_out = features[train:fitted]
            search = RateSearch.of(
                lambda settings: descent.fit_and_predict(settings, held_out),
                labels[train:fitted],
                self.params.learning_rates,
                self.params.ridges,
                RATES,
            )
            best = search.best
            scores, tested = NO_TEST, None
            if splits.test is not None:
                again = _Descent(self.params, subject, features[:fitted], labels[:fitted])
                tested = again.fit_and_predict([best.setting], features[fitted:])[0].numpy()
                scores = score_predictions(labels[fitted:].numpy(), tested, splits.class_names)
        main = Score(best.accuracy, scores.test_accuracy, test_interval=scores.test_interval)
        details = {
            "learning_rate": best.setting.rate,
            "ridge": best.setting.shrinkage,
            "validation_accuracy_by_setting": search.accuracies(),
            **vars(scores),
        }
        predictions = Predictions(best.predicted.numpy(), tested)
        return ProbeOutcome((main,), details, search.notes(), search.choice("ridge"), {"": predictions})


class _Descent:
    """Linear classifiers of decorrelated features.

    Args:
        features: [n, D'] float32 to fit on, in memory or mapped. labels: [n] int64.
    """

    def __init__(self, params: LinearSgdParams, subject: Subject, features: np.ndarray, labels: Tensor) -> None:
        self.params, self.features, self.labels = params, features, labels
        self.device, self.seed, self.num_classes = subject.device, subject.seed, len(subject.splits.class_names)
        self.predict_size = subject.batch_size
        self.components = principal_components(features, self.device)

    def fit_and_predict(self, settings: Sequence[Setting], held_out: np.ndarray) -> Tensor:
        """The class of each image in `held_out` by a classifier of each setting, [G, n] int64 on the CPU.

        They see the same batches, and do not disturb each other.
        """
        scales = self.components.scales([setting.shrinkage for setting in settings])  # [G, D']
        heads = self._fit(torch.tensor([setting.rate for setting in settings], device=self.device), scales)
        with torch.no_grad():
            found = [heads.logits(x, scales).argmax(dim=2).cpu() for x in self._parts(held_out)]
        return torch.cat(found, dim=1)

    def _fit(self, rates: Tensor, scales: Tensor) -> LinearHeads:
        """One classifier for each of the rates [G]."""
        heads = LinearHeads.zeros(len(rates), self.features.shape[1], self.num_classes, self.device)
        parameters = (heads.weights, heads.biases)
        velocities = [torch.zeros_like(parameter) for parameter in parameters]
        batch_size = min(self.params.batch_size, len(self.features))
        order = BatchOrder(len(self.features), batch_size, build_generator(self.seed, "linear_sgd order"))
        total = self.params.epochs * order.steps_per_epoch
        for step in range(total):
            rows = order.next().sort().values  # in the order of the file
            x, y = self._components(self.features[rows.numpy()]), self.labels[rows].to(self.device)
            gradients = torch.autograd.grad(summed_cross_entropy(heads.logits(x, scales), y), parameters)
            rate = rates[:, None, None] * (1 + math.cos(math.pi * step / total)) / 2
            with torch.no_grad():
                for parameter, gradient, velocity in zip(parameters, gradients, velocities, strict=True):
                    velocity.mul_(_MOMENTUM).add_(gradient)
                    parameter.sub_(rate * velocity)
        return heads

    def _parts(self, features: np.ndarray) -> Iterator[Tensor]:
        for start in range(0, len(features), self.predict_size):
            yield self._components(np.array(features[start : start + self.predict_size]))

    def _components(self, features: np.ndarray) -> Tensor:
        """[b, D'] on the device."""
        return self.components.of(torch.from_numpy(features).to(self.device))
