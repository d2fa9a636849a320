"""What every tracker keeps."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import pytest

from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.components import ComponentContract
from jepa_lab.testing.randomness import global_generators
from jepa_lab.testing.seen_runs import make_rows
from jepa_lab.tracking.base import MirrorState, Tracker
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.metrics import MetricsWriter
from jepa_lab.tracking.run_folder import RunFolder


class TrackerContract(ComponentContract):
    """Tests of a `Tracker`; with the settings under test it must reach the place where it keeps records.

    Attributes:
        patience_seconds: after which the record of a small run must be complete.
    """

    patience_seconds: ClassVar[float] = 60.0

    @pytest.fixture
    def tracker(self, entry: Entry[Tracker], params: ComponentParams) -> Tracker:
        """The tracker of a new run."""
        return entry.component(params, None)

    @pytest.fixture
    def folder(self, tracker: Tracker, tmp_path: Path) -> RunFolder:
        """A run folder that has been made and not yet been trained in."""
        made = RunFolder.create(tmp_path / "runs", "run", "0123456789", 0, "name: run\n")
        made.write_description(RunDescription({"seed": "0"}, {"masker": "random"}, tracker=tracker.settings()))
        return made

    def test_it_says_in_a_line_where_records_are(self, tracker: Tracker) -> None:
        assert tracker.describe().strip()
        assert "\n" not in tracker.describe()
        assert isinstance(tracker.settings(), TrackerSettings | None)
        assert tracker.settings() == tracker.settings()

    def test_a_run_is_followed_to_its_end_and_its_folder_is_left_as_it_was(
        self, tracker: Tracker, folder: RunFolder
    ) -> None:
        said: list[str] = []
        state = global_generators()
        tracker.start(folder)
        with MetricsWriter(folder.metrics, None) as writer:
            for row in make_rows():
                writer.append(row.step, row.epoch, row.metrics)
        folder.write_result("FINISHED", {"probe/validation_accuracy": 0.75}, make_rows()[-1].step)
        files = _run_files(folder)
        found = tracker.close(self.patience_seconds, said.append)
        assert isinstance(found, MirrorState)
        assert found.complete, f"{found.sentence(folder.path)} {said}"
        assert not found.still_sending
        assert _run_files(folder) == files
        assert global_generators() == state


def _run_files(folder: RunFolder) -> dict[str, str]:
    """Digests of what the run has written: a tracker may add files of its own, and must not touch these."""
    files = (folder.config, folder.description, folder.metrics, folder.result)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
