"""The life of a run whose folder exists: it works, and however it ends, its folder and its tracker say how."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass

from jepa_lab.build import surveys_of
from jepa_lab.composition.description import describe_run
from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.parts import RunParts
from jepa_lab.composition.stopping import interruption
from jepa_lab.composition.tracker import build_tracker
from jepa_lab.composition.work import Work
from jepa_lab.config.provenance import plugin_components
from jepa_lab.contracts import plugin_failure
from jepa_lab.data.survey import save_surveys
from jepa_lab.errors import JepaLabError, PluginError, RunCrashed, RunFolderError, RunPruned
from jepa_lab.interruption import StopRequested
from jepa_lab.tracking.base import FollowedElsewhere, Tracker
from jepa_lab.tracking.credentials import scrub
from jepa_lab.tracking.description import RunStatus
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.devices import memory_errors
from jepa_lab.training.pretrain import RunCollapsed

logger = logging.getLogger(__name__)


_TRACKER_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Run:
    """A run whose folder exists."""

    parts: RunParts

    def execute(self) -> RunOutcome:
        """Train, probe and write result.json, whatever happens; then let the tracker catch up."""
        return self._lead() if self.parts.team.leads else self._follow()

    def _follow(self) -> RunOutcome:
        with memory_errors(self.parts.pipeline.training):
            Work(self.parts).execute()
        return self.parts.team.from_leader(self._lead)  # which the leader has come to the end of

    def _lead(self) -> RunOutcome:
        parts = self.parts
        with parts.team.reporting():
            tracker = build_tracker(parts.pipeline, parts.folder)
            if parts.member is not None:
                tracker = FollowedElsewhere(tracker)
            parts.folder.write_description(describe_run(parts, tracker))
            save_surveys(parts.folder.path / "data.json", surveys_of(parts.data, parts.probe_data))
        with parts.folder.open_log():
            logger.info("tracking: %s", tracker.describe())
            for note in dict.fromkeys((*parts.data.notes, *parts.probe_data.notes)):
                logger.warning(note)
            for level, line in parts.about_images():
                logger.log(level, line)
            try:
                with parts.team.reporting():
                    tracker.start(parts.folder)
                with memory_errors(parts.pipeline.training):
                    figures_error = Work(parts).execute()
            except Exception as raised:
                error = plugin_failure(raised) or raised
                message = str(error) if isinstance(error, JepaLabError) else repr(error)
                status: RunStatus = "KILLED" if isinstance(error, RunPruned) else "FAILED"
                self._record_end(status, message, collapsed=isinstance(error, RunCollapsed))
                self._close_after_error(tracker, _TRACKER_TIMEOUT_SECONDS)
                if isinstance(error, PluginError) and error is not raised:
                    logger.critical("a plug-in failed", exc_info=raised)
                    raise PluginError(f"{error}; the traceback is in {parts.folder.log}") from raised
                if isinstance(error, JepaLabError):
                    raise
                logger.critical("crashed", exc_info=error)
                raise RunCrashed(self._about_crash(error)) from error
            except BaseException as error:  # Ctrl-C and the like: leave at once, the mirror goes on by itself
                self._record_end("KILLED", str(error) or type(error).__name__)
                self._close_after_error(tracker, 0.0)
                if isinstance(error, KeyboardInterrupt):
                    raise interruption(error, self._how_to_go_on()) from None
                raise
            mirror = tracker.close(_TRACKER_TIMEOUT_SECONDS)
        result = parts.folder.read_result()
        assert result is not None, "written by its work"
        outcome = RunOutcome(parts.folder, result, tracker.describe(), mirror, figures_error)
        return parts.team.from_leader(lambda: outcome)

    def _about_crash(self, error: Exception) -> str:
        """Whose mistake an error is that nobody has foreseen, as far as can be known."""
        parts = self.parts
        what = f"jepa-lab crashed: {type(error).__name__}: {error}"
        foreign = plugin_components(parts.pipeline)
        if not foreign:
            return f"{what}. This is a bug in jepa-lab: the traceback is in {parts.folder.log}; please report it"
        return (
            f"{what}. Either what {' or '.join(foreign)} gave led to it, or it is a bug in jepa-lab: the traceback is "
            f"in {parts.folder.log}. If it happens without plug-ins too, please report it"
        )

    def _how_to_go_on(self) -> str:
        if self._has_finished():
            path = shlex.quote(str(self.parts.folder.path))
            return f"while figures were drawn; the run has finished, and `jepa-lab report {path}` draws them"
        steps = CheckpointStore(self.parts.folder.checkpoints).steps()
        saved = f"the last checkpoint is at step {steps[-1]}" if steps else "no step was taken"
        again = f"--resume {shlex.quote(str(self.parts.folder.path))}"
        if self.parts.team.size > 1:
            return f"({saved}); start the same torchrun command again with {again} to resume it"
        return f"({saved}); resume it with `jepa-lab run {again}`"

    def _has_finished(self) -> bool:
        """Whether the result is there; what goes wrong after it changes nothing about it."""
        try:
            result = self.parts.folder.read_result()
        except RunFolderError:
            return False
        return result is not None and result["status"] == "FINISHED"

    def _record_end(self, status: RunStatus, message: str, collapsed: bool = False) -> None:
        """Write how the run ended, unless it has finished, or the disk is what ended it."""
        if self._has_finished():
            return
        parts = self.parts
        steps = CheckpointStore(parts.folder.checkpoints).steps()
        metrics = {"collapsed": 1.0} if collapsed else {}
        more = parts.data_record() | {"error": scrub(message)} | ({"collapsed": True} if collapsed else {})
        try:
            # torchrun sends SIGTERM to the others as soon as one process has ended with an error.
            with parts.team.stop.held():
                parts.folder.write_result(status, metrics, steps[-1] if steps else 0, None, **more)
        except JepaLabError as error:
            logger.warning("result.json could not be written: %s", error)

    def _close_after_error(self, tracker: Tracker, timeout_seconds: float) -> None:
        """Let the tracker catch up; what goes wrong there must not hide why the run ended."""
        try:
            tracker.close(timeout_seconds)
        except (JepaLabError, AssertionError, StopRequested) as error:
            logger.warning("the tracker could not be closed: %s", error)
