"""`jepa-lab run FILE --from RUN`: a new run that continues from the state of another one.

Its folder names the other one in parent.json until it has a checkpoint of its own, and afterwards for the record.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jepa_lab.config.loading import HOW_IMAGES_ARE_READ, LoadedPipeline, changed_keys, load_resolved
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.monitors.spectra import SPECTRA, Spectra
from jepa_lab.tracking.records import read_record, record_as, write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore, check_tensors, restore_optimizer
from jepa_lab.training.checkpointer import Checkpointer

FILE = "parent.json"
_KIND, _VERSION = "parent", 1
_ARCHITECTURE = ("encoder.", "predictor.", "hierarchy.", "target.")
_SAME_ORDER = ("seed", "data.", "training.batch_size", "training.device", "training.precision")
"""Keys that decide about order and masks, which continue where the other run left them."""


@dataclass(frozen=True)
class Parent:
    """What a run starts from.

    Attributes:
        folder: of the other run. run_uid: its identity.
        step: of the checkpoint.
        restart_schedules: whether steps are counted from 0 again; else from the checkpoint's.
    """

    folder: str
    run_uid: str
    step: int
    restart_schedules: bool

    def checkpoint(self) -> Checkpoint:
        """The state that the new run starts with.

        Raises:
            RunFolderError: it is no longer there, or another run's.
        """
        folder = RunFolder(Path(self.folder))
        if not folder.path.is_dir() or folder.read_description().run_uid != self.run_uid:
            raise RunFolderError(
                f"{folder.path} is no longer the run that this one continues; restore it, or start a new run"
            )
        return CheckpointStore(folder.checkpoints).load(self.step)

    def begin(self, checkpointer: Checkpointer) -> None:
        """Give the new run both encoders, the predictor and AdamW's state; unless schedules restart, also the step.

        Raises:
            RunFolderError: the tensors are not those of this run's model.
        """
        checkpoint = self.checkpoint()
        if not self.restart_schedules:
            # What belongs to the other run's own files stays with it; the evaluation of this step is made again.
            monitor = {**checkpoint.run.monitor, SPECTRA: Spectra().to_dict()}
            run = replace(checkpoint.run, monitor=monitor, evaluated=False, best_online_probe=None, best_step=None)
            checkpointer.restore(replace(checkpoint, run=run))
            return
        step = checkpointer.step
        check_tensors(checkpoint, step.model, ())
        step.model.load_state_dict(checkpoint.model)
        restore_optimizer(step.model, step.optimizer, checkpoint.optimizer)


def choose_parent(folder: RunFolder, loaded: LoadedPipeline, *, restart_schedules: bool) -> Parent:
    """The last checkpoint of a run, for a pipeline that may continue it.

    Raises:
        ConfigError: the pipeline differs in what a run cannot change on its way.
        RunFolderError: there is no checkpoint.
    """
    stored = load_resolved(folder.config.read_text(encoding="utf-8"), str(folder.config))
    fixed = _ARCHITECTURE if restart_schedules else (*_ARCHITECTURE, *_SAME_ORDER)
    reading = {f"data.{name}" for name in HOW_IMAGES_ARE_READ}
    changed = [key for key in changed_keys(stored, loaded.pipeline) if key.startswith(fixed) and key not in reading]
    if changed:
        more = "" if restart_schedules else "; with --restart-schedules data, seed and batch size may change"
        raise ConfigError(
            f"--from {folder.path}: {', '.join(changed)} cannot change on the way; leave them as they were there{more}"
        )
    step = CheckpointStore(folder.checkpoints).load().run.step
    return Parent(str(folder.path.resolve()), folder.read_description().run_uid, step, restart_schedules)


def check_steps(parent: Parent, pipeline: Pipeline, num_images: int) -> None:
    """Refuse a run that would have nothing left to do.

    Raises:
        ConfigError: its last step is not beyond the checkpoint.
    """
    total = pipeline.training.epochs * (num_images // pipeline.training.batch_size)
    if not parent.restart_schedules and total <= parent.step:
        raise ConfigError(
            f"training.epochs={pipeline.training.epochs} ends at step {total}, and {parent.folder} is already at step "
            f"{parent.step}; raise it, or count from 0 again with --restart-schedules"
        )


def write_parent(folder: RunFolder, parent: Parent) -> None:
    """Name the run that `folder` continues."""
    write_record(folder.path / FILE, _KIND, _VERSION, asdict(parent))


def read_parent(folder: RunFolder) -> Parent | None:
    """The run that `folder` continues; None where it starts anew.

    Raises:
        RunFolderError: the file is damaged.
    """
    file = folder.path / FILE
    return record_as(Parent, read_record(file, _KIND, _VERSION), file) if file.exists() else None
