"""What a run keeps of the spectra of its features: the first and the last, as few numbers as a figure needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

SPECTRA = "spectra"
"""Their place in the memory of an evaluation, which checkpoints hold."""
_DIGITS = 5


@dataclass(frozen=True)
class Spectra:
    """Singular values of the centred features of the same validation images, largest first.

    Attributes:
        first: before training; None before any evaluation, and in a run that an earlier jepa-lab began.
        last: at the last evaluation; None before any.
        num_images: how many images they are of.
    """

    first: tuple[float, ...] | None = None
    last: tuple[float, ...] | None = None
    num_images: int = 0

    def then(self, values: Tensor, num_images: int) -> Spectra:
        """After one more evaluation, that found `values` [k]."""
        found = tuple(float(f"{value:.{_DIGITS}g}") for value in values.tolist())
        return Spectra(found if self.last is None else self.first, found, num_images)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, memory: Mapping[str, Any]) -> Spectra:
        """Those in the memory of an evaluation; an earlier jepa-lab kept none."""
        if SPECTRA not in memory:
            return cls(None, ())
        first, last = (
            None if each is None else tuple(each) for each in (memory[SPECTRA]["first"], memory[SPECTRA]["last"])
        )
        return cls(first, last, int(memory[SPECTRA]["num_images"]))
