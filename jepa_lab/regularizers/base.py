"""What a regulariser is: terms beside the prediction loss, of one vector an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from jepa_lab.contracts import require, require_tensor
from jepa_lab.errors import Problem
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import mean_of_valid
from jepa_lab.registry import Component, ComponentParams, Registry


@dataclass(frozen=True)
class Representations:
    """What a forward pass has computed, and its averages over the valid patches of each image.

    The averages are [B * E, D], one row a pair of image and view; they are computed when they are asked for.

    Attributes:
        context_patches: [B, E, K, D] by the context encoder, with gradients.
        predicted_patches: [B, E, M, T, D] by the predictor, with gradients.
        target_patches: [B, E, M, T, D] without gradients.
    """

    context_patches: Tensor
    predicted_patches: Tensor
    target_patches: Tensor
    masks: Masks

    @property
    def context(self) -> Tensor:
        """Average over the context patches."""
        return mean_of_valid(self.context_patches, self.masks.context.valid).flatten(0, 1)

    @property
    def predictions(self) -> Tensor:
        """Average prediction over the patches of all target blocks."""
        return mean_of_valid(self.predicted_patches.flatten(2, 3), self._target_valid()).flatten(0, 1)

    @property
    def targets(self) -> Tensor:
        """Average target over the same patches."""
        return mean_of_valid(self.target_patches.flatten(2, 3), self._target_valid()).flatten(0, 1)

    def _target_valid(self) -> Tensor | None:
        """[B, E, M * T], or None where every patch is valid."""
        valid = self.masks.target.valid
        return None if valid is None else valid.flatten(1).unsqueeze(1).expand(-1, self.masks.context.shape[1], -1)


@dataclass(frozen=True)
class Term:
    """One term: `weight` times `value` is added to the loss, `value` is logged."""

    weight: float
    value: Tensor


@dataclass(frozen=True)
class ImagesAtOnce:
    """How many images are computed at once: a batch in parts, on several processes."""

    batch_size: int
    parts: int
    processes: int = 1

    @property
    def count(self) -> int:
        """In one part, on one process."""
        return self.batch_size // (self.parts * self.processes)


class Regularizer(Component[ImagesAtOnce], ABC):
    """Computes terms that are added to the prediction loss.

    Args:
        params: the regulariser's own `Params`; `check` gets `ImagesAtOnce`.

    Attributes:
        min_images: the fewest images whose statistics mean something.
    """

    min_images: int = 1

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @classmethod
    def check(cls, params: Any, known: ImagesAtOnce) -> Problem | str | None:
        """Whether statistics of so many images mean something."""
        if known.count >= cls.min_images:
            return None
        among = "" if known.processes == 1 else f" by each of {known.processes} processes"
        return Problem(
            f"its statistics need at least {cls.min_images} images at once, got a batch of {known.batch_size} in "
            f"{known.parts} part(s){among}; raise training.batch_size, or lower training.accumulation_steps"
        )

    @abstractmethod
    def terms(self, representations: Representations) -> dict[str, Term]:
        """The terms by name, for the images that are computed together."""


def require_terms(regularizer: Regularizer, terms: object) -> None:
    """Refuse what a regulariser returned, unless it is terms by name.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(regularizer, "terms", isinstance(terms, dict), terms, "a dict of Term by name")
    assert isinstance(terms, dict)
    for name, term in terms.items():
        require(regularizer, "terms", isinstance(name, str), f"the name {name!r}", "names of text")
        require(regularizer, f"terms, as {name!r}", isinstance(term, Term), term, "a Term")
        weight = isinstance(term.weight, int | float)
        require(regularizer, f"terms, as the weight of {name!r}", weight, term.weight, "a number")
        require_tensor(regularizer, f"terms, as the value of {name!r}", term.value, (), "scalar")


REGULARIZERS: Registry[Regularizer] = Registry("regularizer", Regularizer)
