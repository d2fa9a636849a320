"""The choice of a learning rate and of one more setting, among classifiers that are trained side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from jepa_lab.probes.grids import OpenGrid, Tried, edge_of, flat_top_of, notes_on_choice, widen

_AT_ONCE = 2
"""Further rates that one more training tries."""


class Setting(NamedTuple):
    """What one classifier is trained with.

    Attributes:
        shrinkage: how much it is held back, in the probe's own measure: a ridge, a weight decay.
    """

    rate: float
    shrinkage: float


@dataclass(frozen=True)
class Found:
    """What a setting gave on the validation split.

    Attributes:
        predicted: the class of each image, [n] int64.
    """

    setting: Setting
    accuracy: float
    predicted: Tensor


FitAndPredict = Callable[[Sequence[Setting]], Tensor]
"""Trains a classifier with each setting and gives the class of each validation image, [G, n] int64 on the CPU."""


@dataclass(frozen=True)
class RateSearch:
    """Every rate with every shrinkage, and further rates while the best one lies at an end of the default grid.

    Attributes:
        found: in the order of the search.
        is_default: whether the grid was the default one.
    """

    found: tuple[Found, ...]
    is_default: bool

    @classmethod
    def of(
        cls,
        fit_and_predict: FitAndPredict,
        labels: Tensor,
        rates: tuple[float, ...] | None,
        shrinkages: tuple[float, ...],
        grid: OpenGrid,
    ) -> RateSearch:
        """Train and look.

        Args:
            labels: of the validation images, [n] int64.
            rates: None for the grid.
        """
        found: list[Found] = []

        def attempt(some: Sequence[float]) -> None:
            settings = [Setting(rate, shrinkage) for rate in some for shrinkage in shrinkages]
            for setting, predicted in zip(settings, fit_and_predict(settings), strict=True):
                found.append(Found(setting, (predicted == labels).double().mean().item(), predicted))

        attempt(rates or grid.values)
        if rates is None:
            widen(grid, lambda: cls(tuple(found), True).by_rate, attempt, _AT_ONCE)
        return cls(tuple(found), rates is None)

    @cached_property
    def best(self) -> Found:
        """The highest accuracy; of equal ones the largest shrinkage, then the smallest rate."""
        return max(self.found, key=lambda each: (each.accuracy, each.setting.shrinkage, -each.setting.rate))

    @property
    def by_rate(self) -> list[Tried]:
        """The best accuracy with each rate, that of the chosen setting first."""
        rates = dict.fromkeys([self.best.setting.rate, *sorted(each.setting.rate for each in self.found)])
        return [Tried(rate, max(each.accuracy for each in self.found if each.setting.rate == rate)) for rate in rates]

    def notes(self) -> tuple[str, ...]:
        """Sentences about a rate at an end of what was tried, or on a flat top; usually none."""
        about = (edge_of(self.by_rate), flat_top_of(self.by_rate))
        chosen = f"learning rate {self.best.setting.rate:g}"
        return tuple(notes_on_choice(chosen, "learning_rates", *about, is_default=self.is_default))

    def choice(self, shrinkage: str) -> str:
        """What was chosen, in words; empty for a single setting.

        Args:
            shrinkage: its name.
        """
        rate, amount = self.best.setting
        return f"learning rate {rate:g}, {shrinkage} {amount:g}" if len(self.found) > 1 else ""

    def accuracies(self) -> list[list[float]]:
        """Rate, shrinkage and accuracy of every setting, in the order of the search, as JSON values."""
        return [[*each.setting, each.accuracy] for each in self.found]
