"""What a tracker must give, looked at whenever a run asks it for something."""

from __future__ import annotations

from collections.abc import Callable

from jepa_lab.contracts import require
from jepa_lab.tracking.base import MirrorState, Tracker
from jepa_lab.tracking.description import TrackerSettings
from jepa_lab.tracking.run_folder import RunFolder


class CheckedTracker(Tracker):
    """A tracker whose answers are refused where they are not what its base class promises.

    Every method can raise PluginError or AssertionError: see `require`.

    Args:
        tracker: the one that a configuration names.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(tracker.params, tracker.recorded)
        self._tracker = tracker

    def settings(self) -> TrackerSettings | None:
        found: object = self._tracker.settings()
        fits = found is None or isinstance(found, TrackerSettings)
        require(self._tracker, "settings", fits, found, "TrackerSettings or None")
        return found if isinstance(found, TrackerSettings) else None

    def start(self, folder: RunFolder) -> None:
        self._tracker.start(folder)

    def close(self, timeout_seconds: float, say: Callable[[str], None] = print) -> MirrorState:
        found = self._tracker.close(timeout_seconds, say)
        require(self._tracker, "close", isinstance(found, MirrorState), found, "a MirrorState")
        return found

    def describe(self) -> str:
        found = self._tracker.describe()
        require(self._tracker, "describe", isinstance(found, str), found, "a text")
        return found
