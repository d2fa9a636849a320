"""Which images every run of a table got right, as far as its predictions were kept, and which runs can be paired."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jepa_lab.reports.crossed import CrossedEstimate, crossed_estimate
from jepa_lab.runs.predictions import NOT_KEPT, RunPredictions, ScoredImages

BySeed = Mapping[int, ScoredImages]
"""The scored images of an arm's runs, by seed."""

_NO_FOLDER = "the numbers are means of several runs, or it is not known which run folders they are from"
_NO_CLASSES = "it is not an accuracy over images of which each has a predicted class"
OTHER_IMAGES = "the arm and the baseline were not scored on the same images"
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ImageScores:
    """The images of all runs with a result.

    Attributes:
        trials: columns `arm`, `seed`, `run_folder`, one line for each arm and seed.
        predictions: of each run folder, or why there are none.
    """

    trials: pd.DataFrame
    predictions: Mapping[str, RunPredictions | str]

    def of(self, arm: str, metric: str) -> dict[int, ScoredImages]:
        """The arm's images by seed; runs that kept none for this metric are left out."""
        found = {}
        for seed, predictions in self._of_runs(arm).items():
            scored = predictions.scored(metric) if isinstance(predictions, RunPredictions) else None
            if scored is not None:
                found[seed] = scored
        return found

    def why_missing(self, arm: str, metric: str) -> str:
        """Why some of the arm's runs have no images for the metric, in words; `OTHER_IMAGES` where all have some."""
        for predictions in self._of_runs(arm).values():
            if isinstance(predictions, str):
                return predictions
            if predictions.scored(metric) is None:
                return _NO_CLASSES
        return OTHER_IMAGES

    def _of_runs(self, arm: str) -> dict[int, RunPredictions | str]:
        mine = self.trials.loc[self.trials["arm"] == arm, ["seed", "run_folder"]]
        return {
            int(seed): self.predictions.get(folder, NOT_KEPT) if isinstance(folder, str) and folder else _NO_FOLDER
            for seed, folder in zip(mine["seed"], mine["run_folder"], strict=True)
        }


def crossed_comparison(
    values: tuple[Mapping[int, float], Mapping[int, float]], images: tuple[BySeed, BySeed]
) -> CrossedEstimate | None:
    """The difference of two arms over seeds and images.

    Args:
        values: of both arms, by seed. images: of both arms.
    Returns:
        None for fewer than two paired seeds, and unless every paired seed has the same images in both arms, whose
        mean is its value.
    """
    seeds = sorted(set(values[0]) & set(values[1]))
    pairs = [(images[0].get(seed), images[1].get(seed)) for seed in seeds]
    known = [(own, its) for own, its in pairs if own is not None and its is not None]
    if len(seeds) < 2 or len(known) < len(pairs):
        return None
    first = known[0][0]
    fits = all(own.are_those_of(its) and first.images.may_share_images_with(own.images) for own, its in known)
    fits = fits and all(
        math.isclose(each.correct.mean(), found[seed], abs_tol=_ROUNDING)
        for seed, pair in zip(seeds, known, strict=True)
        for each, found in zip(pair, values, strict=True)
    )
    if not fits or min(len(own.correct) for own, _ in known) < 2:
        return None
    return crossed_estimate(
        [own.correct - its.correct for own, its in known], [np.asarray(own.positions) for own, _ in known]
    )
