"""What a tracker is: it keeps a copy of run folders elsewhere, and is never in the way of the training."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_lab.registry import Component, ComponentParams, Registry

if TYPE_CHECKING:
    from jepa_lab.tracking.description import TrackerSettings
    from jepa_lab.tracking.run_folder import RunFolder
    from jepa_lab.tracking.store_choice import RecordedPlace


@dataclass(frozen=True)
class MirrorState:
    """How far a tracker's copy of a run folder is.

    Attributes:
        rows_behind: rows of `metrics.jsonl` that the tracker has not acknowledged.
        pending: what else is missing, in words: "parameters", "artifacts", "model", "status", ...
        error: why the last attempt failed; None if it did not.
        still_sending: a process is at work on the rest, or on the run.
        place: where the copy is, in words; empty where nothing is mirrored.
    """

    rows_behind: int = 0
    pending: tuple[str, ...] = ()
    error: str | None = None
    still_sending: bool = False
    place: str = field(default="", compare=False)

    @property
    def complete(self) -> bool:
        """Whether the tracker has everything."""
        return self.rows_behind == 0 and not self.pending

    def sentence(self, folder: Path) -> str:
        """The state in words, with what to do about it."""
        where = f" ({self.place})" if self.place else ""
        if self.complete:
            return f"the tracker has everything of {folder}{where}"
        command = f"jepa-lab sync {shlex.quote(str(folder))}"
        missing = [f"{self.rows_behind} metric rows"] if self.rows_behind else []
        why = f" (last error: {self.error})" if self.error else ""
        end = " once the process still sending it has ended" if self.still_sending else ""
        return (
            f"the tracker lacks {', '.join([*missing, *self.pending])} of this run{where}{why}; nothing is lost: "
            f"`{command}` completes the record{end}"
        )


class Tracker(Component[None], ABC):
    """Follows one run folder at a time.

    The run writes its folder as if there were no tracker; `start` and `close` are all that it calls.

    Args:
        params: the tracker's own `Params`.
        recorded: where the record of a run that is resumed, or of its sweep, already is: stay there unless the
            parameters name a place. None for a new run.
    Raises:
        ConfigError: the tracker cannot work here at all (a package is missing).
    """

    def __init__(self, params: ComponentParams, recorded: RecordedPlace | None = None) -> None:
        self.params, self.recorded = params, recorded

    @abstractmethod
    def settings(self) -> TrackerSettings | None:
        """What the run writes into `run.json` for the mirror; None where nothing is mirrored."""

    @abstractmethod
    def start(self, folder: RunFolder) -> None:
        """Begin to follow a folder whose `run.json` has been written; returns at once."""

    @abstractmethod
    def close(self, timeout_seconds: float, say: Callable[[str], None] = print) -> MirrorState:
        """Say that no more rows will come, and wait until the copy is complete, but not longer than told.

        Call it after `result.json` has been written, also when the run failed. What the tracker lacks after
        `timeout_seconds` goes on being sent if it can be, and can be completed later. Ctrl-C ends the wait alone.

        Args:
            say: gets a line that tells a person what is waited for, before a wait begins.
        """

    @abstractmethod
    def describe(self) -> str:
        """One line for the table at the end of a run: where the copy is and how to open it."""


class FollowedElsewhere(Tracker):
    """The tracker of a run that is part of a sweep: described as ever, followed by the sweep's own mirror.

    Args:
        tracker: the tracker that the configuration names.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(tracker.params, tracker.recorded)
        self._tracker = tracker

    def settings(self) -> TrackerSettings | None:
        return self._tracker.settings()

    def start(self, folder: RunFolder) -> None:
        """The sweep has started its mirror."""

    def close(self, timeout_seconds: float, say: Callable[[str], None] = print) -> MirrorState:
        return MirrorState()

    def describe(self) -> str:
        return self._tracker.describe()


TRACKERS: Registry[Tracker] = Registry("tracker", Tracker)
