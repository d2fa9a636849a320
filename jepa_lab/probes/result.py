"""What a probe hands back: accuracies with their conditions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jepa_lab.probes.grids import End, notes_on_choice
from jepa_lab.probes.predictions import Predictions


@dataclass(frozen=True)
class ProbeResult:
    """What the logistic probe found. The test fields are None where there is no test split.

    Attributes:
        c: inverse penalty, chosen on the validation split.
        c_at_edge: "low" or "high" where `c` is the smallest or largest of several that were tried: a better C may
            lie beyond it.
        c_grid_is_default: whether the grid went on beyond its ends, as far as it may.
        flat_top: smallest and largest C of those from `c` to an end of what was tried, where all are as good as `c`.
        validation_accuracy: of the fit on the training split with `c`. It is the accuracy that chose `c`, so
            it flatters by a little; the test accuracy does not.
        validation_accuracy_by_c: (C, accuracy) of every C that was tried, in increasing order of C.
        test_accuracy: of the fit on training + validation, scored once.
        test_interval: 95% Wilson interval of `test_accuracy` for the size of the test split.
        per_class_accuracy: class name -> test accuracy; None for a class without test images.
        confusion: test images of each class (row) that were predicted as each class (column).
        converged: whether every fit converged within `max_iterations`.
        unconverged_c: the C of each fit of the search that did not.
        refit_converged: whether the last fit, on training + validation, did.
        predictions: for validation of the fit that gave `validation_accuracy`, for test of the last one.
    """

    c: float
    c_at_edge: End | None
    c_grid_is_default: bool
    flat_top: tuple[float, float] | None
    validation_accuracy: float
    validation_accuracy_by_c: tuple[tuple[float, float], ...]
    test_accuracy: float | None
    test_interval: tuple[float, float] | None
    per_class_accuracy: dict[str, float | None] | None
    confusion: tuple[tuple[int, ...], ...] | None
    converged: bool
    unconverged_c: tuple[float, ...]
    refit_converged: bool | None
    num_train: int
    num_validation: int
    num_test: int | None
    predictions: Predictions

    def notes(self) -> list[str]:
        """Sentences about what a reader should know before trusting the accuracy; usually none."""
        about = (self.c_at_edge, self.flat_top)
        notes = notes_on_choice(f"C={self.c:g}", "c_grid", *about, is_default=self.c_grid_is_default)
        if not self.converged:
            fits = [f"C={c:g}" for c in self.unconverged_c]
            fits += [f"the refit with C={self.c:g}"] if self.refit_converged is False else []
            notes.append(f"no convergence within max_iterations at {', '.join(fits)}; raise it")
        return notes

    def choice(self) -> str:
        """What the validation split chose, if anything."""
        return f"C={self.c:g}" if len(self.validation_accuracy_by_c) > 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the predictions."""
        return {name: value for name, value in asdict(self).items() if name != "predictions"}
