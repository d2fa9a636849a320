"""How the trials that run are doing, read from their run folders."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from jepa_lab.tracking.metrics import iter_lines, parse_row
from jepa_lab.tracking.run_folder import STOP_FILE

ONLINE_PROBE = "probe/online_validation_accuracy"


@dataclass
class TrialWatch:
    """Follows the metrics of a trial.

    Attributes:
        path: its metrics.jsonl, which may not be there yet.
        epochs: of the whole run.
        epoch, loss, online_probe: the last ones seen.
        intermediate: online probe by (whole) epoch.
        began: time.monotonic() when its first row was seen; None before that.
    """

    path: Path
    epochs: int
    epoch: float = 0.0
    loss: float | None = None
    online_probe: float | None = None
    intermediate: dict[int, float] = field(default_factory=dict)
    began: float | None = None
    _offset: int = 0
    _first: tuple[float, float] | None = None  # monotonic seconds and epoch when it was first seen to move

    def update(self) -> None:
        """Read what is new in metrics.jsonl."""
        if self.path.exists() and self.path.stat().st_size < self._offset:
            self._offset = 0  # cut back by a run that was resumed
        for line, end in iter_lines(self.path, self._offset):
            row = parse_row(line, self.path, end)
            self._offset, self.epoch = end, row.epoch
            self.loss = row.metrics.get("train/loss", self.loss)
            probe = row.metrics.get(ONLINE_PROBE)
            if probe is not None:
                self.online_probe = self.intermediate[round(row.epoch)] = probe
        if self._offset and self.began is None:
            self.began = time.monotonic()
        if self.epoch > 0 and self._first is None:
            self._first = (time.monotonic(), self.epoch)

    def ask_to_stop(self) -> None:
        """Let the run end at its next probe."""
        self.path.with_name(STOP_FILE).touch()

    def seconds_left(self) -> float | None:
        """Of training, at the speed since this process first saw it move; None before that."""
        if self._first is None or self.epoch <= self._first[1]:
            return None
        seconds, epoch = self._first
        return (time.monotonic() - seconds) / (self.epoch - epoch) * (self.epochs - self.epoch)

    def sentence(self) -> str:
        """Epoch, loss, online probe and time left."""
        parts = [f"epoch {self.epoch:.1f}/{self.epochs}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.online_probe is not None:
            parts.append(f"online probe {100 * self.online_probe:.1f}%")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """A time for people: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
