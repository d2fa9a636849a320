"""What a process that follows writes into the run folder: nothing. The leader writes the same values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore


class UnwrittenMetrics:
    """Stands for `MetricsWriter`."""

    sha256 = ""

    def append(self, step: int, epoch: float, metrics: Mapping[str, float | None]) -> None:
        """The leader has written the row."""

    def sync(self) -> int:
        return 0


class UnwrittenCheckpoints(CheckpointStore):
    """The `checkpoints` folder, to read."""

    def save(self, checkpoint: Checkpoint) -> Path:
        """The leader has written it."""
        return self.path(checkpoint.run.step)
