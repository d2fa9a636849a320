"""The mirror of a sweep: its own record and those of its trials, from one process, which is the only writer."""

from __future__ import annotations

import logging
from pathlib import Path

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.description import TrackerSettings
from jepa_lab.tracking.mirror_cursor import follows, is_sweep, trials_of
from jepa_lab.tracking.mlflow_calls import RunDeleted, TrackerAway
from jepa_lab.tracking.mlflow_mirror import Mirror
from jepa_lab.tracking.run_folder import RunFolder

Stamp = tuple[int, int]  # time of change and size of a file
_log = logging.getLogger("jepa_lab.mirror")


def open_mirror(folder: RunFolder) -> Mirror | SweepMirror:
    """The mirror that suits a folder."""
    return SweepMirror(folder) if is_sweep(folder) else Mirror(folder)


class SweepMirror:
    """Brings the MLflow records of a sweep and of its trials up to date; used as `Mirror` is.

    Args:
        folder: the sweep's folder.
    Raises:
        ConfigError: if the sweep is not mirrored. RunFolderError: if its `run.json` is missing or damaged.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._record = Mirror(folder)
        self._trials: dict[Path, Mirror] = {}
        self._done: dict[Path, Stamp] = {}  # result.json with which the trial was sent: it is not looked at again
        self._troubled: dict[Path, str] = {}

    @property
    def settings(self) -> TrackerSettings:
        """Those of the sweep's record, which are those of its trials."""
        return self._record.settings

    def push(self, ended: bool) -> None:
        """Send everything that the tracker lacks; a trial that cannot be sent does not keep the others waiting.

        Args:
            ended: no process writes the sweep any more.
        Raises:
            TrackerAway: if the tracker failed, or, at the end, if a trial could not be sent.
            RunFolderError: if a file of the sweep's own record is damaged.
        """
        if ended:  # the sweep is shown as ended when all of it is there
            self._record.connected_run_id()
            self._troubled.clear()
        else:
            self._record.push(ended=False)
        for trial in trials_of(self.folder):
            if trial.path not in self._troubled:
                self._push_trial(trial, ended)
        if ended:
            self._record.push(ended=True)
            if self._troubled:
                raise TrackerAway("; ".join(dict.fromkeys(self._troubled.values())))

    def note_error(self, error: Exception) -> None:
        """Keep the reason of a failure where `mirror_state` finds it."""
        self._record.note_error(error)

    def _push_trial(self, trial: RunFolder, ended: bool) -> None:
        stamp = _stamp(trial.result)
        if stamp is not None and self._done.get(trial.path) == stamp:
            return
        # A worker that was killed left no result; as long as the sweep goes on, another one goes on with the trial.
        over = (ended or stamp is not None) and not trial.is_alive()
        try:
            mirror = self._mirror_of(trial)
            if mirror is not None:
                mirror.push(over)
        except (RunDeleted, RunFolderError) as error:
            _log.warning("%s", error)
            self._troubled[trial.path] = str(error)
            return
        if over and stamp is not None:
            self._done[trial.path] = stamp
            self._trials.pop(trial.path, None)

    def _mirror_of(self, trial: RunFolder) -> Mirror | None:
        """The mirror of a trial; None for one that was resumed alone without a tracker."""
        if trial.path not in self._trials:
            settings = trial.read_description().tracker
            if settings is None:
                return None
            self._trials[trial.path] = Mirror(trial, self._record if follows(settings, self.settings) else None)
        return self._trials[trial.path]


def _stamp(file: Path) -> Stamp | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
