"""What the training loop asks of the evaluation at probe epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Evaluation:
    """What the evaluation at a probe epoch found.

    Attributes:
        metrics: flat names and values, for metrics.jsonl; `validation/loss` is among them. None where there was
            nothing to measure.
        online_probe: validation accuracy of the cheap probe, or None without labels.
        warning: a sentence when the features look as if they collapse: which rules say so, with their numbers.
        collapsed: whether that has persisted.
    """

    metrics: dict[str, float | None]
    online_probe: float | None
    warning: str | None
    collapsed: bool


class Evaluator(Protocol):
    """Measures the model at a probe epoch, and remembers what it saw from checkpoint to checkpoint."""

    @property
    def collapsed(self) -> bool:
        """Whether the features have been judged collapsed, now or before."""

    @property
    def warning(self) -> str | None:
        """That of the last evaluation, also of one before a checkpoint."""

    def evaluate(self) -> Evaluation:
        """Measure the model as it is now.

        Raises:
            RunStopped: its features are not finite.
        """

    def state(self) -> dict[str, Any]:
        """Its memory, as JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's memory."""
