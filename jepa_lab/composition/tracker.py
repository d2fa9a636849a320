"""The tracker of a run: the one its pipeline names, where its record is already."""

from __future__ import annotations

from jepa_lab.config.pipeline import Pipeline
from jepa_lab.tracking.base import TRACKERS, Tracker
from jepa_lab.tracking.mirror_cursor import sweep_of
from jepa_lab.tracking.required import CheckedTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.store_choice import RecordedPlace


def build_tracker(pipeline: Pipeline, folder: RunFolder | None) -> Tracker:
    """The pipeline's tracker, not started.

    Args:
        folder: of the run, or of the sweep: what it recorded decides unless the pipeline names a place. None where it
            is not there yet.
    Raises:
        ConfigError: the environment names a store that is none.
    """
    recorded = None if folder is None else _recorded_place(folder)
    return CheckedTracker(TRACKERS.entry_of(pipeline.tracking).component(pipeline.tracking, recorded))


def _recorded_place(folder: RunFolder) -> RecordedPlace | None:
    """Where the record of a run that is resumed is, or that of the sweep which a new trial is a part of."""
    holders = {"the run folder": folder, "the sweep folder": sweep_of(folder)}
    for holder, each in holders.items():
        if each is not None and each.description.exists():
            settings = each.read_description().tracker
            return None if settings is None else RecordedPlace(settings, holder)
    return None
