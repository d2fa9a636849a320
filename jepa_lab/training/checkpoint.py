"""Checkpoints: all state of a run, written atomically, never executable.

    checkpoints/step-00000500/
        model.safetensors      context encoder, target encoder, predictor; its metadata: `channel_mean`, `channel_std`
        optimizer.safetensors  AdamW's moments and step counts, by parameter name
        state.safetensors      random generators, finite gate, running sums
        state.json             step, position in the data order, cursors, configuration, digests of the other files

The tensor files of two runs with equal tensors are the same bytes, so `sha256sum` tells whether a run was reproduced;
state.json differs, because it holds the run's identity and its times.

Kept: the last two, and the best by online probe. A damaged one that `load_last_good` passed over is kept as
`damaged-step-00000500`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import explained_writes, sync_folder
from jepa_lab.tracking.records import read_record, record_as, write_record
from jepa_lab.training.tensor_file import read_tensors, write_tensors

FORMAT_VERSION = 2
_METADATA = {"format": "jepa-lab tensors", "format_version": str(FORMAT_VERSION)}
_KEPT = 2
_FOLDER_NAME = re.compile(r"step-(\d{8,})")
_TENSOR_FILES = ("model.safetensors", "optimizer.safetensors", "state.safetensors")


@dataclass
class RunState:
    """The part of a checkpoint that is not tensors.

    Attributes:
        step: optimizer steps taken.
        epoch, batch: position in the data order (see `BatchPosition`).
        metrics_cursor: bytes of metrics.jsonl at this step. metrics_sha256: their digest.
        num_threads: CPU threads, restored so that sums are rounded alike.
        device, precision: what the run began on, such as "cuda" and "bf16"; its generators fit no other device.
        seed, config_digest, config: of the resolved configuration, and its YAML.
        monitor: the collapse monitor's history.
        evaluated: False where the run was stopped before the evaluation that belongs to this step.
        best_online_probe: highest validation accuracy so far, and the step of its checkpoint.
        seconds: time spent training so far.
        run_uid: of the run, as in `run.json`; empty in checkpoints that were written before it was kept.
        compiled: whether the model was compiled, which decides about rounding; None as for `run_uid`.
    """

    step: int
    epoch: int
    batch: int
    metrics_cursor: int
    metrics_sha256: str
    num_threads: int
    device: str
    precision: str
    seed: int
    config_digest: str
    config: str
    monitor: dict[str, Any]
    evaluated: bool = True
    best_online_probe: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    run_uid: str = ""
    compiled: bool | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        model_metadata: what a user of the weights must know beside them, as text for the header of their file.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Tensor]
    run: RunState
    model_metadata: Mapping[str, str] = field(default_factory=dict)


class CheckpointStore:
    """The `checkpoints` folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then delete those that need not be kept.

        A checkpoint appears under its name only when all of it is on the disk.

        Raises:
            RunStopped: the disk is full; earlier checkpoints are untouched.
        """
        name = f"step-{checkpoint.run.step:08d}"
        final, partial = self.folder / name, self.folder / f".partial-{name}"
        with explained_writes(final):
            self.folder.mkdir(exist_ok=True)
            self._delete_leftovers()
            partial.mkdir()
            try:
                parts = (checkpoint.model, checkpoint.optimizer, checkpoint.state)
                more: tuple[Mapping[str, str], ...] = (checkpoint.model_metadata, {}, {})
                digests = {
                    file: write_tensors(partial / file, tensors, {**_METADATA, **metadata})
                    for file, tensors, metadata in zip(_TENSOR_FILES, parts, more, strict=True)
                }
                content = {**asdict(checkpoint.run), "files": digests}
                write_record(partial / "state.json", "checkpoint", FORMAT_VERSION, content)
                if final.exists():  # written before, by the run that this one resumes
                    os.rename(final, self.folder / f".old-{name}")
                os.rename(partial, final)
                sync_folder(self.folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            self._delete_old(best_step=checkpoint.run.best_step)
        return final

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        names = (_FOLDER_NAME.fullmatch(path.name) for path in self.folder.glob("step-*") if path.is_dir())
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint at `step`."""
        return self.folder / f"step-{step:08d}"

    def load(self, step: int | None = None) -> Checkpoint:
        """Read the checkpoint at `step`, by default the latest.

        Raises:
            RunFolderError: there is none, or a file of it is damaged.
        """
        steps = self.steps()
        if not steps:
            raise RunFolderError(f"{self.folder} holds no checkpoint; start the run again")
        if step is not None and step not in steps:
            known = ", ".join(map(str, steps))
            raise RunFolderError(f"{self.folder} holds no checkpoint of step {step}; it holds those of step {known}")
        return load_checkpoint(self.path(steps[-1] if step is None else step))

    def load_last_good(self, fits: Callable[[Checkpoint], str | None]) -> tuple[Checkpoint | None, list[str]]:
        """Read the latest checkpoint that is whole and that fits the rest of the run folder.

        Damaged ones that are passed over are renamed, so that they are neither counted nor read again.

        Args:
            fits: what is wrong with going on from a checkpoint, in words, or None.
        Returns:
            The checkpoint, None where there never was one; and what was wrong with each that was passed over.
        Raises:
            RunFolderError: there are checkpoints, and none can be used.
        """
        problems, damaged = [], []
        for step in reversed(self.steps()):
            try:
                checkpoint = load_checkpoint(self.path(step))
            except RunFolderError as error:
                problems.append(str(error))
                damaged.append(step)
                continue
            problem = fits(checkpoint)
            if problem is None:
                self._set_aside(damaged)
                return checkpoint, problems
            problems.append(problem)
        if problems:
            raise RunFolderError(
                f"no checkpoint in {self.folder} can be used: {'; '.join(dict.fromkeys(problems))}. "
                "Restore the files from a copy, or start a new run"
            )
        return None, []

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            aside = self.folder / f"damaged-{self.path(step).name}"
            with explained_writes(aside):
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(self.path(step), aside)

    def _delete_old(self, best_step: int | None) -> None:
        for step in self.steps()[:-_KEPT]:
            if step != best_step:
                # Renamed first: a kill in the middle of deleting must not leave half a checkpoint under its name.
                os.rename(self.path(step), self.folder / f".old-{self.path(step).name}")
        self._delete_leftovers()

    def _delete_leftovers(self) -> None:
        """What was being written or deleted, by this process or by one that was killed."""
        for pattern in (".partial-step-*", ".old-step-*"):
            for folder in self.folder.glob(pattern):
                shutil.rmtree(folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify one checkpoint folder.

    Raises:
        RunFolderError: a file is missing, damaged, or of another format.
    """
    try:
        document = read_record(folder / "state.json", "checkpoint", FORMAT_VERSION)
        digests = document.pop("files")
        run = record_as(RunState, document, folder / "state.json")
        if _FOLDER_NAME.fullmatch(folder.name) and folder.name != f"step-{run.step:08d}":
            raise RunFolderError(f"{folder} holds the checkpoint of step {run.step}: it was renamed; rename it back")
        parts = [read_tensors(folder / file, digests[file]) for file in _TENSOR_FILES]
        (model, metadata), (optimizer, _), (state, _) = parts
        own = {key: value for key, value in metadata.items() if key not in _METADATA}
        return Checkpoint(model, optimizer, state, run, own)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{folder} is damaged ({error})") from error


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `<parameter>/<key>` -> tensor."""
    found = {}
    for name, parameter in model.named_parameters():
        for key, tensor in optimizer.state.get(parameter, {}).items():
            found[f"{name}/{key}"] = tensor
    return found


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put the tensors of `optimizer_tensors` back.

    Raises:
        RunFolderError: they are not those of this model.
    """
    parameters = dict(model.named_parameters())
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters or tensor.shape not in (parameters[name].shape, torch.Size()):
            raise RunFolderError(
                f"the checkpoint's optimizer state {path} {tuple(tensor.shape)} does not fit the model"
            )
        parameter = parameters[name]
        optimizer.state[parameter][key] = tensor.to(parameter.device)


def check_tensors(checkpoint: Checkpoint, model: nn.Module, state: Iterable[str]) -> None:
    """Refuse a checkpoint whose files are whole and whose tensors are not those that the run needs.

    Args:
        state: names that its `state` must hold.
    Raises:
        RunFolderError: naming what is missing or does not fit.
    """
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in checkpoint.model.items()}
    wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    missing = [name for name in state if name not in checkpoint.state]
    if checkpoint.run.step > 0:
        held = {path.rpartition("/")[0] for path in checkpoint.optimizer}
        missing += [
            f"{name} (optimizer)" for name, each in model.named_parameters() if each.requires_grad and name not in held
        ]
    if wrong or missing:
        shown = ", ".join((wrong + missing)[:3])
        raise RunFolderError(
            f"the checkpoint of step {checkpoint.run.step} does not fit the run: {len(wrong)} tensors have another "
            f"shape and {len(missing)} are missing ({shown}); restore it from a copy, or start a new run"
        )
