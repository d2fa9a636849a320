"""The class that a probe predicts for each image: what tells the luck of the images from the effect of an arm."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa_lab.runs.predictions import smallest_dtype


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted classes, integers in [0, classes), in the order of the split's images.

    Each is [n]; or [R, n] where a score is the mean accuracy of R fits, such as one for each draw of labels.

    Attributes:
        validation: of the fit that gave the validation accuracy.
        test: of the fit that gave the test accuracy; None where there is none.
    """

    validation: np.ndarray
    test: np.ndarray | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predictions) and all(
            (own is None) == (its is None) and np.array_equal(own, its)  # type: ignore[arg-type]
            for own, its in ((self.validation, other.validation), (self.test, other.test))
        )

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "validation": _packed(self.validation),
            "test": None if self.test is None else _packed(self.test),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Predictions:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        test = content["test"]
        return cls(_unpacked(content["validation"]), None if test is None else _unpacked(test))


def stacked(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several fits whose accuracies are averaged, [R, n]."""
    tests = [part.test for part in parts if part.test is not None]
    assert len(tests) in (0, len(parts)), "all score the test split, or none does"
    return Predictions(np.stack([part.validation for part in parts]), np.stack(tests) if tests else None)


def accuracy_of(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose predicted class is the true one, over all fits.

    Args:
        predicted: [n] or [R, n]. labels: [n].
    """
    return float((predicted == labels).mean())


def _packed(array: np.ndarray) -> dict[str, Any]:
    small = np.ascontiguousarray(array, smallest_dtype(array))
    return {
        "dtype": small.dtype.str,
        "shape": list(small.shape),
        "base64": base64.b64encode(small.tobytes()).decode("ascii"),
    }


def _unpacked(content: dict[str, Any]) -> np.ndarray:
    raw = base64.b64decode(content["base64"], validate=True)
    return np.frombuffer(raw, np.dtype(content["dtype"])).reshape(content["shape"])
