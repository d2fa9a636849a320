"""The mirror of a sweep: its own record and those of its trials, from one process, which is the only writer."""

from __future__ import annotations

from pathlib import Path

from jepa_lab.tracking.description import TrackerSettings
from jepa_lab.tracking.mirror_cursor import is_sweep, trials_of
from jepa_lab.tracking.mlflow_mirror import Mirror
from jepa_lab.tracking.run_folder import RunFolder


def open_mirror(folder: RunFolder) -> Mirror | SweepMirror:
    """The mirror that suits a folder."""
    return SweepMirror(folder) if is_sweep(folder) else Mirror(folder)


class SweepMirror:
    """Brings the MLflow records of a sweep and of its trials up to date; used as `Mirror` is.

    Args:
        folder: the sweep's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._record = Mirror(folder)
        self._trials: dict[Path, Mirror] = {}
        self._linked: set[Path] = set()
        self._done: set[Path] = set()

    @property
    def settings(self) -> TrackerSettings:
        """Those of the sweep's record, which are those of its trials."""
        return self._record.settings

    def push(self, ended: bool) -> None:
        """Send everything that the tracker lacks.

        Args:
            ended: no process writes the sweep any more.
        Raises:
            TrackerAway: if the tracker failed. RunFolderError: if a file is damaged.
        """
        self._record.push(ended)
        for trial in trials_of(self.folder):
            if trial.path not in self._done:
                self._push_trial(trial, ended)

    def note_error(self, error: Exception) -> None:
        """Keep the reason of a failure where `mirror_state` finds it."""
        self._record.note_error(error)

    def _push_trial(self, trial: RunFolder, ended: bool) -> None:
        # A worker that was killed left no result; as long as the sweep goes on, another one goes on with the trial.
        over = not trial.is_alive() and (ended or trial.result.exists())
        if trial.path not in self._trials:
            self._trials[trial.path] = Mirror(trial)
        mirror = self._trials[trial.path]
        mirror.push(over)
        if trial.path not in self._linked:
            mirror.link_to(self._record)
            self._linked.add(trial.path)
        result = trial.read_result() if over else None
        if result is not None and result["status"] == "FINISHED":
            self._done.add(trial.path)
            del self._trials[trial.path]
