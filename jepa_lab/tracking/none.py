"""No tracker: the run folder is the only record. Needs neither MLflow nor a database."""

from __future__ import annotations

from collections.abc import Callable

from jepa_lab.registry import ComponentParams
from jepa_lab.tracking.base import TRACKERS, MirrorState, Tracker
from jepa_lab.tracking.description import TrackerSettings
from jepa_lab.tracking.run_folder import RunFolder


@TRACKERS.register("none", summary="the run folder alone", source="jepa-lab")
class NoTracker(Tracker):
    """Copies nothing."""

    Params = ComponentParams

    def settings(self) -> TrackerSettings | None:
        return None

    def start(self, folder: RunFolder) -> None:
        """Nothing to start."""

    def close(self, timeout_seconds: float, say: Callable[[str], None] = print) -> MirrorState:
        return MirrorState()

    def describe(self) -> str:
        return "no tracker (tracking: none); run folders hold everything"
