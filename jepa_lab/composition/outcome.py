"""What a run gives at its end, and what it may be a part of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jepa_lab.errors import JepaLabError
from jepa_lab.tracking.base import MirrorState
from jepa_lab.tracking.run_folder import RunFolder


@dataclass(frozen=True)
class RunOutcome:
    """What the end of a run tells.

    Attributes:
        result: content of result.json.
        tracker: where the tracker's copy is and how to open it. mirror: how complete that copy is.
        figures_error: what to raise, once the result has been shown, about figures that could not be drawn.
    """

    folder: RunFolder
    result: dict[str, Any]
    tracker: str
    mirror: MirrorState
    figures_error: JepaLabError | None = None


@dataclass(frozen=True)
class Membership:
    """What a run is a part of: a sweep, which follows its trials for the tracker.

    Attributes:
        tags, params: what the tracker is told beside the run's own.
        lock_seconds: how long to wait for a process that is still leaving the run.
        needs_probe: whether its result is of no use without a probe.
    """

    tags: Mapping[str, str]
    params: Mapping[str, str]
    lock_seconds: float = 60.0
    needs_probe: bool = False
