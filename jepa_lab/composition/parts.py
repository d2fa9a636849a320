"""What a run whose folder exists is made of."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from jepa_lab.build import PreparedData
from jepa_lab.composition.outcome import Membership
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.resident import channel_record
from jepa_lab.data_record import data_record
from jepa_lab.errors import printable
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint
from jepa_lab.training.devices import Compute
from jepa_lab.training.team import Team


@dataclass(frozen=True)
class RunParts:
    """What a run whose folder exists is made of.

    Attributes:
        checkpoint: what it goes on from; None to begin at step 0.
        started: time.monotonic() when the command began.
        team: the processes that train together. The leader alone writes the folder.
    """

    pipeline: Pipeline
    folder: RunFolder
    compute: Compute
    data: PreparedData
    probe_data: PreparedData
    checkpoint: Checkpoint | None
    started: float
    member: Membership | None
    team: Team

    def about_images(self) -> list[tuple[int, str]]:
        """The first lines of a run: how many images each split has, and what is to be known about them, as warnings."""
        told = {"images": self.data} | ({} if self.pipeline.probe.data is None else {"probe images": self.probe_data})
        lines = []
        for name, data in told.items():
            lines.append((logging.INFO, f"{name}: {data.counts.sentence()}"))
            lines += [(logging.WARNING, f"note on the {name}: {note}") for note in data.told]
        return [(level, printable(line)) for level, line in lines]

    def data_record(self) -> dict[str, Any]:
        """What result.json says about the images, however the run ended."""
        return {
            **channel_record(self.data.mean, self.data.std),
            **data_record(self.data, self.probe_data),
        }
