"""The linear probe: logistic regression on standardised features."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.errors import Key
from jepa_lab.probes.arrays import NUMPY, EstimatorArrays, estimator_arrays
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.grids import End, OpenGrid, Tried, beyond, edge_of, flat_top_of
from jepa_lab.probes.predictions import Predictions
from jepa_lab.probes.result import ProbeResult
from jepa_lab.probes.scores import NO_TEST, score_predictions
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import ComponentParams, broken_rule

C_GRID = OpenGrid(
    (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0), lower=(1e-5, 1e-6, 1e-7, 1e-8), higher=(1e3, 1e4, 1e5, 1e6)
)

_TOLERANCE = 1e-5
"""Largest gradient of the mean loss at the end of a fit. At scikit-learn's 1e-4 a fit of separable features stops
long before its penalty matters, and the accuracy at a large C is that of an early stop."""

_STANDARD_ERRORS = 2.0
"""The search ends at a C that is worse than the best one by more standard errors than this."""


class LogisticParams(ComponentParams):
    """The grid of penalties and the length of a fit."""

    c_grid: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        min_length=1,
        description="Inverse penalties C of the logistic regression, increasing; the validation split chooses one. "
        "Null: 0.0001 to 100 in steps of 10, and on from there to at least 1e-8 and at most 1e6 while the best C lies "
        "at an end.",
    )
    max_iterations: int = Field(
        3000, ge=1, le=1_000_000, strict=True, description="Most L-BFGS iterations of one fit; reaching it is reported."
    )

    @model_validator(mode="after")
    def _check(self) -> LogisticParams:
        if any(low >= high for low, high in itertools.pairwise(self.c_grid or ())):
            raise broken_rule(Key("c_grid"), f" must be increasing without repetition, got {self.c_grid}")
        return self


@PROBES.register(
    "logistic",
    summary="logistic regression on standardised features of the frozen encoder, its penalty chosen on validation",
    source="linear evaluation as in Assran et al. 2023, arXiv:2301.08243, sec. 5; fitted to convergence, not by SGD",
)
class Logistic(Probe):
    """Fits to convergence, so nothing but the penalty has to be chosen."""

    Params = LogisticParams
    params: LogisticParams
    title = "a logistic regression on frozen features"
    uses_seed = False

    def run(self, subject: Subject) -> ProbeOutcome:
        splits, names = subject.features, subject.splits.class_names
        arrays = estimator_arrays(subject.device)
        result = logistic_probe(splits.train, splits.validation, splits.test, self.params, names, arrays=arrays)
        score = Score(result.validation_accuracy, result.test_accuracy, test_interval=result.test_interval)
        notes = tuple(result.notes())
        return ProbeOutcome((score,), result.to_dict(), notes, result.choice(), {"": result.predictions})


def logistic_probe(
    train: Labelled,
    validation: Labelled,
    test: Labelled | None,
    params: LogisticParams,
    class_names: tuple[str, ...],
    *,
    refit: bool = True,
    arrays: EstimatorArrays = NUMPY,
) -> ProbeResult:
    """Choose C on the validation split, fit again on training + validation, score the test split once.

    Features are standardised by the images that the regression is fitted on. The search goes from strong to weak
    penalties, each fit starting from the one before, and ends early at a C that is clearly worse than the best: weak
    penalties need most iterations exactly where they overfit. Of equal accuracies the smallest C wins. The default grid
    goes on beyond its ends, see `jepa_lab.probes.grids`; there a C has to be better than those tried before it.
    `validation_accuracy` of the result is the one that chose C.

    Args:
        train: every class of `class_names` occurs in it.
        test: its labels are used for nothing but the score.
        refit: False scores the fit on the training split, where the number of labels that are fitted on is the point.
        arrays: what the regression computes on; the coefficients are the same to rounding.
    """
    with arrays.computing(train[0].numel()):
        fits = search([(train, validation)], params, arrays)
        chosen = _best(fits)
        unconverged = tuple(fit.c for fit in fits if not fit.converged)
        scores, found = _NO_TEST, None
        if test is not None:
            last = chosen.models[0]
            if refit:
                both = (torch.cat((train[0], validation[0])), torch.cat((train[1], validation[1])))
                last = fit_model(both, chosen.c, params, arrays, chosen.models[0], overwrite=True)
            found = last.predict(test[0], arrays)
            scores = vars(score_predictions(test[1].numpy(), found, class_names)) | {"refit_converged": last.converged}
    return ProbeResult(
        c=chosen.c,
        c_at_edge=edge_of(tried(fits)),
        c_grid_is_default=params.c_grid is None,
        flat_top=flat_top_of(tried(fits)),
        validation_accuracy=chosen.accuracy,
        validation_accuracy_by_c=tuple(sorted((fit.c, fit.accuracy) for fit in fits)),
        converged=not unconverged and scores["refit_converged"] is not False,
        unconverged_c=unconverged,
        num_train=len(train[1]),
        num_validation=len(validation[1]),
        predictions=Predictions(chosen.predicted, found),
        **scores,
    )


@dataclass(frozen=True)
class Model:
    """A regression, and the standardisation of its features."""

    scaler: Any
    classifier: Any
    converged: bool

    def predict(self, features: Tensor, arrays: EstimatorArrays) -> np.ndarray:
        """The class of each image, [n] int64."""
        return arrays.to_numpy(self.classifier.predict(self.scaler.transform(arrays.of(features), copy=True)))


@dataclass(frozen=True)
class Fit:
    """One C of the search.

    Attributes:
        predicted: [n] int64, the class of each held-out image, one division after another. correct: [n] bool, whether
            it is the true one.
        models: one for each division.
    """

    c: float
    predicted: np.ndarray
    correct: np.ndarray
    models: tuple[Model, ...]

    @property
    def accuracy(self) -> float:
        """On the held-out images."""
        return float(self.correct.mean())

    @property
    def converged(self) -> bool:
        """Whether all regressions did."""
        return all(model.converged for model in self.models)


def search(
    divisions: Sequence[tuple[Labelled, Labelled]], params: LogisticParams, arrays: EstimatorArrays
) -> list[Fit]:
    """Fit C after C, from strong to weak penalties, until one is clearly worse than the best; then beyond the grid.

    Args:
        divisions: images to fit on and images held out: one pair, or one for each fold of a cross-validation.
    """
    labels = np.concatenate([held_out[1].numpy() for _, held_out in divisions])

    def fit(c: float, neighbour: Fit | None) -> Fit:
        starts = [None] * len(divisions) if neighbour is None else neighbour.models
        models = tuple(
            fit_model(train, c, params, arrays, start) for (train, _), start in zip(divisions, starts, strict=True)
        )
        parts = [model.predict(held_out[0], arrays) for model, (_, held_out) in zip(models, divisions, strict=True)]
        predicted = np.concatenate(parts)
        return Fit(c, predicted, predicted == labels, models)

    fits: list[Fit] = []
    for c in params.c_grid or C_GRID.values:
        fits.append(fit(c, fits[-1] if fits else None))
        if _is_clearly_worse(fits[-1].correct, _best(fits).correct):
            break
    if params.c_grid is None:
        for end in get_args(End):
            outermost = min if end == "low" else max
            while further := beyond(end, tried(fits), C_GRID):
                fits.append(fit(further[0], outermost(fits, key=lambda each: each.c)))
    return fits


def fit_model(
    train: Labelled,
    c: float,
    params: LogisticParams,
    arrays: EstimatorArrays,
    start: Model | None = None,
    *,
    overwrite: bool = False,
) -> Model:
    """A regression on standardised features.

    Args:
        start: it begins at its coefficients.
        overwrite: standardise the features in place, for a copy that nobody else needs.
    """
    from sklearn.preprocessing import StandardScaler

    scaler, begin = StandardScaler(copy=not overwrite), None if start is None else start.classifier
    features, labels = scaler.fit_transform(arrays.of(train[0])), arrays.of(train[1])
    classifier, converged = _fit(features, labels, c, params.max_iterations, begin)
    return Model(scaler, classifier, converged)


def tried(fits: Sequence[Fit]) -> list[Tried]:
    """The values of C in the order of the search."""
    return [Tried(fit.c, fit.accuracy) for fit in fits]


def _best(fits: Sequence[Fit]) -> Fit:
    """The highest accuracy; of equal ones the first."""
    return max(fits, key=lambda fit: fit.accuracy)


def _is_clearly_worse(correct: np.ndarray, best: np.ndarray) -> bool:
    """Whether accuracy on the same images, each [n] bool, is lower by more than `_STANDARD_ERRORS`.

    Source: McNemar 1947, Psychometrika 12, 153-157: only images that one classifies correctly and the other does not
    say anything about the difference.
    """
    lost, gained = int((best & ~correct).sum()), int((correct & ~best).sum())
    return lost - gained > _STANDARD_ERRORS * math.sqrt(lost + gained)


def _fit(features: Any, labels: Any, c: float, max_iterations: int, start: Any | None) -> tuple[Any, bool]:
    """One regression, begun at the coefficients of `start`.

    Args:
        features: [n, D'] arrays of either kind. labels: [n] of the same kind.
    Returns:
        The classifier, and whether it converged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(C=c, tol=_TOLERANCE, max_iter=max_iterations, warm_start=True)
    if start is not None:
        classifier.coef_, classifier.intercept_ = copy.deepcopy((start.coef_, start.intercept_))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(features, labels)
    failed = [warning for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    for warning in caught:
        if warning not in failed:  # recording took it away from whoever listens
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return classifier, not failed and int(classifier.n_iter_.max()) < max_iterations


_NO_TEST: dict[str, Any] = {**vars(NO_TEST), "refit_converged": None}
