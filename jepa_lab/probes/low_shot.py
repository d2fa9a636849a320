"""The low-shot probe: what a few labels a class are worth."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.errors import Key
from jepa_lab.probes.arrays import EstimatorArrays, estimator_arrays
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.grids import End, best_of, edge_of, flat_top_of
from jepa_lab.probes.logistic import Fit, LogisticParams, fit_model, logistic_probe, search, tried
from jepa_lab.probes.predictions import Predictions, accuracy_of, stacked
from jepa_lab.probes.result import ProbeResult
from jepa_lab.probes.subject import LabelledSplits, Subject
from jepa_lab.randomness import build_generator
from jepa_lab.registry import broken_rule

_SEED = 0
"""Of the draws. They are the same for every run and control, so that what is compared saw the same labels."""

Shots = Annotated[int, Field(ge=1, strict=True)] | Literal["all"]


class LowShotParams(LogisticParams):
    """Numbers of labels, and draws of each."""

    shots: tuple[Shots, ...] = Field(
        (1, 5, 10, 100),
        min_length=1,
        description="Labels a class, increasing; `all` (at the end) is the logistic probe itself. A number that some "
        "class has not got in the training split is skipped.",
    )
    draws: int = Field(
        5, ge=1, le=1000, strict=True, description="Random choices of the labels; the mean of their accuracies counts."
    )
    folds: int = Field(
        5,
        ge=2,
        strict=True,
        description="Parts of the cross-validation within the labels that chooses C; with fewer labels a class than "
        "that, one part for each of them.",
    )
    c_of_one_label: float = Field(
        1.0, gt=0, description="C where there is one label a class, of which no part can be held out."
    )

    @model_validator(mode="after")
    def _check_shots(self) -> LowShotParams:
        counts = [math.inf if shots == "all" else shots for shots in self.shots]
        if any(low >= high for low, high in itertools.pairwise(counts)):
            raise broken_rule(Key("shots"), f" must be increasing without repetition, `all` the last, got {self.shots}")
        return self


@dataclass(frozen=True)
class _Draw:
    """One choice of labels: accuracies of the fit on them alone; `c_at_edge` and `flat_top` as in `ProbeResult`.

    Attributes:
        chosen_by: what chose C; "given" where there was one value.
    """

    c: float
    chosen_by: Literal["cross_validation", "one_label_rule", "given", "validation"]
    c_at_edge: End | None
    flat_top: tuple[float, float] | None
    validation_accuracy: float
    test_accuracy: float | None
    converged: bool


_Measured = tuple[_Draw, Predictions]


@PROBES.register(
    "low_shot",
    summary="logistic regression on a few labels a class, mean and interval over several draws of them",
    source="the protocol of Assran et al. 2023, arXiv:2301.08243, sec. 5 (1% of the labels), by class and with draws",
)
class LowShot(Probe):
    """Fits the logistic probe on n labels a class, drawn several times.

    C is chosen by cross-validation within the n labels, stratified by class: a validation split of many labels would
    tell more than n labels do. So it is neither chosen nor fitted on the validation split, whose accuracy is as honest
    as that of the test split. With one label a class nothing can be held out, and C is `c_of_one_label`. With `all`
    labels nothing is drawn: that is the logistic probe, whose C the validation split chooses.
    """

    Params = LowShotParams
    params: LowShotParams
    title = "a logistic regression on a few labels, its penalty chosen by cross-validation within them"
    uses_seed = False
    gives_one_accuracy = False

    def score_keys(self, depth: int) -> tuple[str, ...]:
        return tuple(map(str, self.params.shots))

    def run(self, subject: Subject) -> ProbeOutcome:
        splits, names = subject.features, subject.splits.class_names
        smallest = int(splits.train[1].bincount(minlength=len(names)).min())
        arrays = estimator_arrays(subject.device)
        scores, found, predictions, skipped = [], {}, {}, []
        for shots in self.params.shots:
            possible = shots == "all" or shots <= smallest
            measured = self._measured(shots, splits, names, arrays) if possible else []
            if measured:
                predictions[str(shots)] = stacked([predicted for _, predicted in measured])
            draws = [draw for draw, _ in measured]
            scores.append(_score(shots, draws))
            found[str(shots)] = draws
            skipped += [] if possible else [str(shots)]
        notes = []
        if skipped:
            rule = f"the smallest class has {smallest} training image(s)"
            notes.append(f"{', '.join(skipped)} labels a class were skipped: {rule}")
        notes += _notes(found, self.params.c_grid is None)
        details = {shots: [vars(draw) for draw in draws] for shots, draws in found.items()}
        return ProbeOutcome(tuple(scores), {"draws": details}, tuple(notes), predictions=predictions)

    def _measured(
        self, shots: int | str, splits: LabelledSplits, names: tuple[str, ...], arrays: EstimatorArrays
    ) -> list[_Measured]:
        """One for each draw of labels."""
        if shots == "all":
            return [
                _of_all(logistic_probe(splits.train, splits.validation, splits.test, self.params, names, arrays=arrays))
            ]
        found = []
        for number in range(self.params.draws):
            chosen = draw_labels(splits.train[1], int(shots), build_generator(_SEED, f"low shot {shots} {number}"))
            few: Labelled = (splits.train[0][chosen], splits.train[1][chosen])
            found.append(_of_few(few, int(shots), splits, self.params, arrays))
        return found


def _of_all(result: ProbeResult) -> _Measured:
    chosen_by: Literal["given", "validation"] = "validation" if len(result.validation_accuracy_by_c) > 1 else "given"
    accuracies = (result.validation_accuracy, result.test_accuracy)
    draw = _Draw(result.c, chosen_by, result.c_at_edge, result.flat_top, *accuracies, result.converged)
    return draw, result.predictions


def _of_few(
    few: Labelled, shots: int, splits: LabelledSplits, params: LowShotParams, arrays: EstimatorArrays
) -> _Measured:
    """Choose C within the labels, fit on all of them, and predict the other splits.

    Args:
        few: `shots` images of each class.
    """
    with arrays.computing(few[0].numel()):
        fits: list[Fit] = []
        chosen_by: Literal["cross_validation", "one_label_rule", "given"] = "given"
        if params.c_grid is not None and len(params.c_grid) == 1:
            (c,) = params.c_grid
        elif shots == 1:
            c, chosen_by = params.c_of_one_label, "one_label_rule"
        else:
            fits = search(_divisions(few, min(params.folds, shots)), params, arrays)
            c, chosen_by = best_of(tried(fits)).value, "cross_validation"
        model = fit_model(few, c, params, arrays)
        predicted = model.predict(splits.validation[0], arrays)
        tested = None if splits.test is None else model.predict(splits.test[0], arrays)
    test_accuracy = None
    if splits.test is not None and tested is not None:
        test_accuracy = accuracy_of(tested, splits.test[1].numpy())
    draw = _Draw(
        c,
        chosen_by,
        edge_of(tried(fits)) if fits else None,
        flat_top_of(tried(fits)) if fits else None,
        accuracy_of(predicted, splits.validation[1].numpy()),
        test_accuracy,
        model.converged and all(fit.converged for fit in fits),
    )
    return draw, Predictions(predicted, tested)


def _divisions(few: Labelled, folds: int) -> list[tuple[Labelled, Labelled]]:
    """What each part of a cross-validation is fitted on, and what it holds out: each class in equal shares."""
    from sklearn.model_selection import StratifiedKFold

    features, labels = few
    parts = StratifiedKFold(folds).split(features, labels)
    return [((features[fitted], labels[fitted]), (features[held_out], labels[held_out])) for fitted, held_out in parts]


def _notes(found: Mapping[str, list[_Draw]], c_grid_is_default: bool) -> Iterator[str]:
    """What happened to some draws, with their numbers of labels."""

    def where(happened: Callable[[_Draw], bool]) -> str:
        return ", ".join(shots for shots, draws in found.items() if any(map(happened, draws)))

    at_edge, flat = where(lambda draw: draw.c_at_edge is not None), where(lambda draw: draw.flat_top is not None)
    if at_edge and c_grid_is_default:
        yield f"C is at an end of what is tried by default at {at_edge} labels a class; a better one may lie beyond it"
    elif at_edge:
        yield f"C is at an end of c_grid at {at_edge} labels a class; extend the grid there, or leave it out"
    if flat:
        yield f"C is as good as every one from it to an end of those tried at {flat} labels a class"
    unconverged = where(lambda draw: not draw.converged)
    if unconverged:
        yield f"no convergence within max_iterations at {unconverged} labels a class; raise it"


def draw_labels(labels: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """`shots` images of each class at random, as indices in increasing order.

    Args:
        labels: [n] int64; each class at least `shots` times.
    """
    order = torch.randperm(len(labels), generator=generator)
    chosen = [order[labels[order] == label][:shots] for label in labels.unique()]
    return torch.cat(chosen).sort().values


def mean_interval(values: list[float]) -> tuple[float, float] | None:
    """95% interval of the mean by Student's t, within [0, 1]; None for a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return max(0.0, mean - half), min(1.0, mean + half)


def _score(shots: int | str, draws: list[_Draw]) -> Score:
    """Mean and interval over the draws; without numbers where there are none."""
    found: dict[str, Any] = {}
    for split in ("validation", "test"):
        values = [getattr(draw, f"{split}_accuracy") for draw in draws]
        if not values or None in values:
            found |= {split: None, f"{split}_interval": None}
        else:
            found |= {split: statistics.fmean(values), f"{split}_interval": mean_interval(values)}
    label = "all labels" if shots == "all" else f"{shots} label{'s' if shots != 1 else ''} a class"
    if draws and draws[0].chosen_by == "one_label_rule":
        label += f", C={draws[0].c:g}"
    return Score(key=str(shots), label=label, **found)
