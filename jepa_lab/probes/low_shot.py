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
from jepa_lab.probes.grids import End
from jepa_lab.probes.logistic import LogisticParams, logistic_probe
from jepa_lab.probes.predictions import stacked
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

    @model_validator(mode="after")
    def _check_shots(self) -> LowShotParams:
        counts = [math.inf if shots == "all" else shots for shots in self.shots]
        if any(low >= high for low, high in itertools.pairwise(counts)):
            raise broken_rule(Key("shots"), f" must be increasing without repetition, `all` the last, got {self.shots}")
        return self


@dataclass(frozen=True)
class _Draw:
    """One choice of labels: accuracies of the fit on them alone; `c_at_edge` and `flat_top` as in `ProbeResult`."""

    c: float
    c_at_edge: End | None
    flat_top: tuple[float, float] | None
    validation_accuracy: float
    test_accuracy: float | None
    converged: bool

    @classmethod
    def of(cls, result: ProbeResult) -> _Draw:
        """What a logistic probe found with these labels."""
        accuracies = (result.validation_accuracy, result.test_accuracy)
        return cls(result.c, result.c_at_edge, result.flat_top, *accuracies, result.converged)


@PROBES.register(
    "low_shot",
    summary="logistic regression on a few labels a class, mean and interval over several draws of them",
    source="the protocol of Assran et al. 2023, arXiv:2301.08243, sec. 5 (1% of the labels), by class and with draws",
)
class LowShot(Probe):
    """Fits the logistic probe on n labels a class, drawn several times.

    The validation split chooses C for each draw and is never fitted on: the test split is scored with the fit on n
    labels a class. With `all` labels nothing is drawn, and the last fit is on training + validation as in the
    logistic probe, whose numbers these then are.
    """

    Params = LowShotParams
    params: LowShotParams
    title = "a logistic regression on a few labels"
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
            results = self._fits(shots, splits, names, arrays) if possible else []
            if results:
                predictions[str(shots)] = stacked([result.predictions for result in results])
            draws = [_Draw.of(result) for result in results]
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

    def _fits(
        self, shots: int | str, splits: LabelledSplits, names: tuple[str, ...], arrays: EstimatorArrays
    ) -> list[ProbeResult]:
        """One for each draw of labels."""
        if shots == "all":
            return [logistic_probe(splits.train, splits.validation, splits.test, self.params, names, arrays=arrays)]
        found = []
        for number in range(self.params.draws):
            chosen = draw_labels(splits.train[1], int(shots), build_generator(_SEED, f"low shot {shots} {number}"))
            few: Labelled = (splits.train[0][chosen], splits.train[1][chosen])
            parts = (few, splits.validation, splits.test)
            found.append(logistic_probe(*parts, self.params, names, refit=False, arrays=arrays))
        return found


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
            found |= {f"{split}_accuracy": None, f"{split}_interval": None}
        else:
            found |= {f"{split}_accuracy": statistics.fmean(values), f"{split}_interval": mean_interval(values)}
    label = "all labels" if shots == "all" else f"{shots} label{'s' if shots != 1 else ''} a class"
    return Score(key=str(shots), label=label, **found)
