"""Resuming a run that was stopped: what is read again, what must not have changed, what is done about damage."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from jepa_lab.composition.checks import check_batch, check_probe, check_team
from jepa_lab.composition.data import load_shared_data
from jepa_lab.composition.outcome import Membership, RunOutcome
from jepa_lab.composition.parts import RunParts
from jepa_lab.composition.run import Run
from jepa_lab.composition.shared_folder import check_shared_folder
from jepa_lab.composition.stopping import locked, stoppable
from jepa_lab.composition.tracker import build_tracker
from jepa_lab.config.loading import (
    LoadedPipeline,
    changed_keys,
    changes_no_result,
    config_digest,
    flat_items,
    load_pipeline,
    reading_images_as,
)
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.provenance import component_origins
from jepa_lab.errors import RunFolderError
from jepa_lab.output import unfailing_output
from jepa_lab.tracking.base import MirrorState
from jepa_lab.tracking.description import RunDescription, flat_params
from jepa_lab.tracking.environment import describe_environment, environment_changes, resumed_on
from jepa_lab.tracking.metrics import MetricsWriter, damage_before, read_metrics
from jepa_lab.tracking.mirror_cursor import mirror_state
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore, load_checkpoint
from jepa_lab.training.devices import Compute, resolve_compute, resume_compute
from jepa_lab.training.team import Alone, Team

logger = logging.getLogger(__name__)


def find_unfinished(run_root: Path, pipeline: Pipeline) -> RunFolder | None:
    """The newest run of this configuration and seed that has not finished, or None."""
    unfinished = [folder for folder in find_runs(run_root, pipeline) if not is_finished(folder)]
    return unfinished[-1] if unfinished else None


def find_finished(run_root: Path, pipeline: Pipeline) -> RunFolder | None:
    """A run of this configuration and seed that has finished, or None."""
    return next((folder for folder in find_runs(run_root, pipeline) if is_finished(folder)), None)


def find_runs(run_root: Path, pipeline: Pipeline) -> list[RunFolder]:
    """All runs of this configuration and seed, the newest last."""
    folders = [RunFolder(path) for path in run_root.glob(f"{run_stem(pipeline)}*")]
    return newest_last([each for each in folders if is_named_after(each, pipeline) and each.config.is_file()])


def newest_last(folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Run folders in the order in which their runs began."""
    return sorted(folders, key=_began) if len(folders) > 1 else list(folders)


def is_named_after(folder: RunFolder, pipeline: Pipeline) -> bool:
    """Whether the folder has the name that a run of this configuration and seed gets."""
    return re.fullmatch(rf"{re.escape(run_stem(pipeline))}(-\d+)?", folder.name) is not None


def run_stem(pipeline: Pipeline) -> str:
    """What the folders of all runs of this configuration and seed are named after."""
    return f"{pipeline.name}-{config_digest(pipeline)[:8]}-s{pipeline.seed}"


def is_finished(folder: RunFolder) -> bool:
    """Whether the run has ended well."""
    try:
        result = folder.read_result()
    except RunFolderError:
        return False  # its result is damaged; resuming makes it again
    return result is not None and result["status"] == "FINISHED"


def _began(folder: RunFolder) -> float:
    """Unix time of its first start."""
    try:
        return folder.read_description().started
    except RunFolderError:  # killed before it was written
        return folder.config.stat().st_mtime


def resume_run(
    folder: RunFolder,
    given: Pipeline | None,
    command: Sequence[str],
    member: Membership | None = None,
    team: Team | None = None,
) -> RunOutcome:
    """Go on with a run from its last good checkpoint, or from step 0 if it has none yet.

    Args:
        given: the pipeline of a file or of overrides that the user gave beside the folder; it must be the run's.
        command: the command line, for environment.json.
        member: of what the run is a part; None for a run of its own.
        team: the processes that resume it, by default this one alone; there may be more or fewer than before.
    Raises:
        RunFolderError: the configuration or the data have changed, no checkpoint can be used, or the run is alive.
        DeviceError: this machine does not compute as the one that the run began on.
    """
    started, team = time.monotonic(), Alone() if team is None else team
    with unfailing_output(), stoppable(team.stop), ExitStack() as stack:
        lock_seconds = 0 if member is None else member.lock_seconds
        team.from_leader(lambda: stack.enter_context(locked(folder, lock_seconds)))
        check_shared_folder(folder.path, team)
        with team.reporting():
            folder = RunFolder.open(folder.path)  # one that was found by its name may be of a newer jepa-lab
            loaded = load_pipeline(folder.config)
            pipeline = loaded.pipeline
            if given is not None:
                refuse_changed_config(folder, pipeline, given)
                loaded = replace(loaded, pipeline=reading_images_as(pipeline, given))
                pipeline = loaded.pipeline.model_copy(update={"tracking": given.tracking})  # it may hold credentials
            recorded = folder.read_description() if folder.description.exists() else None
            if recorded is not None:
                _refuse_edited_config(folder, pipeline, recorded)
            notes: list[str] = []
            result = _result(folder, notes)
            if result is not None and result["status"] == "FINISHED":
                return _finished(folder, pipeline, result)
        run_uid = "" if recorded is None else recorded.run_uid
        checkpoint = _shared_checkpoint(folder, pipeline, run_uid, notes, team)
        with team.reporting():
            if recorded is None:
                _refuse_unknown_run(folder, pipeline, checkpoint)
            check_team(loaded, team)
            compute = team.on_device(_compute(loaded, checkpoint))
        data, probe_data = load_shared_data(loaded, compute.device, folder.path / "data.json", team, started)
        with team.reporting():
            if recorded is not None and recorded.dataset is not None and recorded.dataset.digest != data.digest:
                raise RunFolderError(
                    f"the images of data.dataset={recorded.dataset.name!r} have changed since {folder.path} began "
                    f"(digest {recorded.dataset.digest}, now {data.digest}); restore them, or start a new run"
                )
            check_batch(loaded, data)
            check_probe(loaded, probe_data, member)

        def begin() -> None:
            now = describe_environment(command, team.describe(compute)) | {"components": component_origins(pipeline)}
            _note_environment(folder, now, checkpoint, notes)
            with folder.open_log():
                for note in notes:
                    logger.warning(note)
                    print(f"note: {note}", flush=True)
            folder.remove_result()
            step, cursor = (0, 0) if checkpoint is None else (checkpoint.run.step, checkpoint.run.metrics_cursor)
            # Before a tracker follows: it must not send rows that are cut back, or trip over damaged ones.
            MetricsWriter(folder.metrics, cursor).close()
            print(f"resuming from step {step}, the last saved checkpoint", flush=True)

        team.from_leader(begin)
        parts = RunParts(pipeline, folder, compute, data, probe_data, checkpoint, started, member, team)
        return Run(parts).execute()


def _shared_checkpoint(
    folder: RunFolder, pipeline: Pipeline, run_uid: str, notes: list[str], team: Team
) -> Checkpoint | None:
    """The checkpoint that the leader chooses, read by every process."""
    found: list[Checkpoint | None] = []

    def choose() -> int | None:
        found.append(_last_good_checkpoint(folder, pipeline, run_uid, notes))
        return None if found[0] is None else found[0].run.step

    step = team.from_leader(choose)
    if team.leads or step is None:
        return found[0] if team.leads else None
    with team.reporting():
        return load_checkpoint(CheckpointStore(folder.checkpoints).path(step))


def _last_good_checkpoint(folder: RunFolder, pipeline: Pipeline, run_uid: str, notes: list[str]) -> Checkpoint | None:
    """The newest checkpoint that can be used; what is wrong with newer ones goes to the notes.

    Raises:
        RunFolderError: there were checkpoints, and none can be used.
    """

    digest = config_digest(pipeline)

    def fits(checkpoint: Checkpoint) -> str | None:
        run = checkpoint.run
        if (run.config_digest, run.seed) != (digest, pipeline.seed):
            what = "configuration" if run.config_digest != digest else f"seed ({run.seed})"
            return f"the checkpoint of step {run.step} is that of another {what}"
        if run_uid and run.run_uid and run.run_uid != run_uid:
            return f"the checkpoint of step {run.step} is that of another run than run.json"
        return damage_before(folder.metrics, checkpoint.run.metrics_cursor, checkpoint.run.metrics_sha256)

    checkpoint, problems = CheckpointStore(folder.checkpoints).load_last_good(fits)
    if checkpoint is None and any(row.step > 0 for row in read_metrics(folder.metrics)):
        raise RunFolderError(
            f"{folder.checkpoints} holds no checkpoint, but {folder.metrics} has rows after step 0, so there were "
            "some; restore them from a copy, or start a new run"
        )
    if checkpoint is not None and problems:
        notes.append(f"{'; '.join(problems)}. Resuming from the checkpoint of step {checkpoint.run.step}")
    return checkpoint


def _refuse_unknown_run(folder: RunFolder, pipeline: Pipeline, checkpoint: Checkpoint | None) -> None:
    """Without run.json, the folder's name is all that can vouch for config.yaml.

    Raises:
        RunFolderError: a run that has a checkpoint has lost run.json, or the name is not that of this configuration.
    """
    if checkpoint is not None:
        folder.read_description()  # says that it is missing
    if not is_named_after(folder, pipeline):
        raise RunFolderError(
            f"{folder.path} was killed before run.json was written, and its name is not that of config.yaml, which was "
            "changed or the folder renamed; nothing was trained yet: delete the folder and start the run again"
        )


def _result(folder: RunFolder, notes: list[str]) -> dict[str, Any] | None:
    """result.json, where there is one that can be read."""
    try:
        return folder.read_result()
    except RunFolderError as error:
        notes.append(f"{error}: it is made again")
        return None


def _compute(loaded: LoadedPipeline, checkpoint: Checkpoint | None) -> Compute:
    """The device, precision and threads that the run began with."""
    training = loaded.pipeline.training
    with loaded.located("training"):
        if checkpoint is not None:
            run = checkpoint.run
            torch.set_num_threads(run.num_threads)
            return resume_compute(training, run.device, run.precision, run.compiled)
        if training.num_threads is not None:
            torch.set_num_threads(training.num_threads)
        return resolve_compute(training)


def _note_environment(folder: RunFolder, now: dict[str, Any], checkpoint: Checkpoint | None, notes: list[str]) -> None:
    """Say what has changed since the run began; write environment.json where there is none that can be read."""
    try:
        before = None if checkpoint is None else folder.read_environment()
    except RunFolderError as error:
        notes.append(f"{error}: it is written again, and what this machine has in common with the first is not known")
        before = None
    if before is None:
        folder.write_environment(now)
        return
    changes = environment_changes(before, now)
    if changes:
        folder.write_environment(resumed_on(before, now))
        notes.append(f"since the run began, this has changed: {', '.join(changes)}; rounding may differ from here on")


def _finished(folder: RunFolder, pipeline: Pipeline, result: dict[str, Any]) -> RunOutcome:
    """The outcome of a run that has nothing left to do."""
    print("this run has already finished; here is its result", flush=True)
    tracker = build_tracker(pipeline, folder)
    mirror = MirrorState() if tracker.settings() is None else mirror_state(folder)
    return RunOutcome(folder, result, tracker.describe(), mirror)


def _refuse_edited_config(folder: RunFolder, pipeline: Pipeline, recorded: RunDescription) -> None:
    """config.yaml must say what it said when the run began; only `tracking` may move.

    Raises:
        RunFolderError: naming the keys that differ.
    """
    before, now = recorded.params, flat_params(pipeline.model_dump(mode="json"))
    # A sweep has told the tracker more than the config.
    changed = [key for key in now if before.get(key) != now[key] and not changes_no_result(key)]
    if changed and not any(key in before for key in changed):
        raise RunFolderError(
            f"{folder.path} was started by an earlier version of jepa-lab, which had no {', '.join(changed)} and may "
            "have computed something else; resume it with that version, or start a new run"
        )
    details = [f"{key} ({before.get(key)} -> {now.get(key)})" for key in changed]
    if details:
        raise RunFolderError(
            f"{folder.config} was changed since the run began: {', '.join(details)}; "
            "restore it (the checkpoints' state.json holds it too), or start a new run"
        )


def refuse_changed_config(folder: RunFolder, stored: Pipeline, given: Pipeline) -> None:
    """A run goes on with the configuration it began with; only `tracking` may move.

    Raises:
        RunFolderError: naming the keys that differ.
    """
    before, now = flat_items(stored), flat_items(given)
    changed = [key for key in changed_keys(stored, given) if not changes_no_result(key)]
    if changed:
        details = ", ".join(f"{key} ({before.get(key)!r} -> {now.get(key)!r})" for key in changed)
        raise RunFolderError(
            f"{folder.path} was started with another configuration: {details}; "
            "leave these keys as they were, or start a new run without --resume"
        )
