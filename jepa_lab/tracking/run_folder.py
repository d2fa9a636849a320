"""The run folder: everything that is true about a run, in files.

```
<root>/<name>-<config digest>-s<seed>/
  config.yaml        the resolved configuration; running it again gives the same run
  run.json           what trackers are told: flat params, tags, data set, tracker
  parent.json        the run that this one continues, if any
  environment.json   versions, machine, commit, command
  metrics.jsonl      one row a step that was logged
  checkpoints/       figures/, probes/ once `jepa-lab probe` ran, report/ once `jepa-lab report` did
  result.json        how the run ended, and its numbers
  predictions.safetensors   the class that each probe predicted for each validation and test image
  log.txt            messages and tracebacks
  data.json          what was found about image files that stream, so that a resumed run need not look again
  run.lock           held while a process works on the run
  STOP               asks the run to end at its next probe (a search has given it up)
  mirror.json        how far the tracker's copy is; mirror.log what the mirror said
```
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field

from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.tracking.atomic import explained_writes, sync_folder, umask, write_text_atomically
from jepa_lab.tracking.description import RunDescription, RunStatus, load_description, save_description
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.records import read_record, record_as, write_record
from jepa_lab.tracking.run_log import RunLog

RESULT_VERSION = 1
ENVIRONMENT_VERSION = 1
CONFIG_VERSION = 1
STOP_FILE = "STOP"
_UNFINISHED = ".new-run-"
_LEFTOVER_SECONDS = 3600
_CONFIG_HEADER = f"# jepa-lab resolved pipeline, format version {CONFIG_VERSION}\n"
_CONFIG_VERSION = re.compile(r"# jepa-lab resolved pipeline, format version (\d{1,9})$")
_LEGAL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def check_run_name(name: str, field: str = "name") -> None:
    """Names become folder names: refuse what could leave the run root or surprise a shell.

    Raises:
        ConfigError: naming `field`, the value and the rule.
    """
    if not _LEGAL_NAME.fullmatch(name):
        raise ConfigError(
            f"{field} must be 1 to 100 letters (a-z, A-Z), digits, '.', '_' or '-' and not start with '.', "
            f"because run folders are named after it; got {name!r}"
        )


@dataclass(frozen=True)
class _ResultCore:
    """What every result.json holds."""

    status: RunStatus
    ended: float
    last_step: int
    final_checkpoint: Annotated[str, Field(pattern=r"^checkpoints/step-[0-9]+$")] | None
    metrics: dict[str, float | None]


_RESULT_KEYS = tuple(field.name for field in fields(_ResultCore))


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; made by `create` or `open`.

    Attributes:
        path: the folder. Everything in it is found from here, so a run folder may be moved.
    """

    path: Path

    @classmethod
    def create(cls, run_root: Path, name: str, digest: str, seed: int, resolved_config_yaml: str) -> RunFolder:
        """Make the folder of a new run; a second run of the same config gets `-2`, a third `-3`.

        Args:
            digest: hexadecimal digest of the resolved config; its first 8 characters are used.
        Raises:
            ConfigError: if `name` is not a legal name.
            RunFolderError: if the root cannot be written. RunStopped: if the disk is full.
        """
        check_run_name(name)
        check_run_name(digest, "the config digest")
        with explained_writes(run_root):
            try:
                run_root.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise RunFolderError(f"the run root {run_root} is a file, not a folder; choose another one") from None
            _delete_leftovers(run_root)
            # Filled under a hidden name and then renamed: a run folder is never half made, whatever happens.
            unfinished = Path(tempfile.mkdtemp(dir=run_root, prefix=_UNFINISHED))
            try:
                (unfinished / "checkpoints").mkdir()
                (unfinished / "figures").mkdir()
                write_text_atomically(unfinished / "config.yaml", _CONFIG_HEADER + resolved_config_yaml)
                os.chmod(unfinished, 0o777 & ~umask())  # mkdtemp's 0700 would hide the run from colleagues
                path = _give_name(unfinished, run_root, f"{name}-{digest[:8]}-s{seed}")
                sync_folder(run_root)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            RunFolderError: if there is no folder, or it is not that of a run.
        """
        if not path.is_dir():
            raise RunFolderError(f"there is no run folder {path}; give the path that the run printed")
        if not (path / "config.yaml").is_file() or not any(
            map(Path.exists, (path / "checkpoints", path / "plan.json"))
        ):
            raise RunFolderError(
                f"{path} is not a run folder: it has no config.yaml with checkpoints/ beside it; "
                "give the path that the run printed"
            )
        folder = cls(path)
        folder._check_config_version()
        return folder

    def _check_config_version(self) -> None:
        """Refuse a config.yaml of a newer jepa-lab; one that a person has written anew has no version."""
        with open(self.config, encoding="utf-8", errors="replace") as file:
            found = _CONFIG_VERSION.match(file.readline(200))
        if found is not None and int(found[1]) > CONFIG_VERSION:
            raise RunFolderError(
                f"{self.config} has format version {found[1]}, this jepa-lab reads {CONFIG_VERSION}; "
                "use the version of jepa-lab that wrote it"
            )

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def config(self) -> Path:
        """config.yaml"""
        return self.path / "config.yaml"

    @property
    def description(self) -> Path:
        """run.json"""
        return self.path / "run.json"

    @property
    def environment(self) -> Path:
        """environment.json"""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """metrics.jsonl"""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """checkpoints/"""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """figures/"""
        return self.path / "figures"

    @property
    def result(self) -> Path:
        """result.json"""
        return self.path / "result.json"

    @property
    def log(self) -> Path:
        """log.txt"""
        return self.path / "log.txt"

    @property
    def stop_file(self) -> Path:
        """STOP"""
        return self.path / STOP_FILE

    @property
    def mirror(self) -> Path:
        """mirror.json"""
        return self.path / "mirror.json"

    @property
    def mirror_log(self) -> Path:
        """mirror.log"""
        return self.path / "mirror.log"

    @property
    def mirror_lock(self) -> Path:
        """mirror.lock"""
        return self.path / "mirror.lock"

    def is_alive(self) -> bool:
        """Whether a process works on the run, or on the sweep."""
        locks = [self.path / name for name in ("run.lock", "sweep.lock")]
        return any(FileLock(path, f"{self.path}").is_held() for path in locks if path.exists())

    def write_environment(self, content: Mapping[str, Any]) -> None:
        """Write environment.json (see `describe_environment`)."""
        write_record(self.environment, "environment", ENVIRONMENT_VERSION, content)

    def read_environment(self) -> dict[str, Any]:
        """The content of environment.json; RunFolderError if it is missing or damaged."""
        return read_record(self.environment, "environment", ENVIRONMENT_VERSION)

    def write_description(self, description: RunDescription) -> None:
        """Write run.json; a run that goes on keeps its identity and its first start."""
        save_description(self.description, description)

    def read_description(self) -> RunDescription:
        """Read run.json; RunFolderError if it is missing or damaged."""
        return load_description(self.description)

    def write_result(
        self,
        status: RunStatus,
        metrics: Mapping[str, float | None],
        last_step: int,
        final_checkpoint: Path | None = None,
        **more: Any,
    ) -> None:
        """Write result.json: how the run ended, and its numbers.

        Args:
            metrics: summary numbers by flat name; trackers log them at `last_step`.
            final_checkpoint: folder inside this one whose `model.safetensors` becomes the logged model.
            more: further JSON values, which trackers keep as part of the file.
        """
        if status not in get_args(RunStatus):
            raise ValueError(f"status must be one of {get_args(RunStatus)}, got {status!r}")
        inside = final_checkpoint and final_checkpoint.resolve().relative_to(self.path.resolve()).as_posix()
        description = self._known_description()
        tracker = None if description is None else description.tracker
        content = {
            "run_uid": "" if description is None else description.run_uid,
            "tracking": None if tracker is None else tracker.record(),
            "status": status,
            "ended": time.time(),
            "last_step": last_step,
            "final_checkpoint": inside,
            "metrics": {name: None if value is None else float(value) for name, value in metrics.items()},
        }
        write_record(self.result, "result", RESULT_VERSION, {**more, **content})

    def read_result(self) -> dict[str, Any] | None:
        """The content of result.json, or None while the run has not ended.

        Raises:
            RunFolderError: it is damaged, or that of another run.
        """
        if not self.result.exists():
            return None
        content = read_record(self.result, "result", RESULT_VERSION)
        record_as(_ResultCore, {key: content[key] for key in _RESULT_KEYS if key in content}, self.result)
        own, of_result = self._run_uid(), content.get("run_uid", "")
        if own and of_result and own != of_result:
            raise RunFolderError(f"{self.result} is that of another run than {self.description}; delete it")
        return content

    def _run_uid(self) -> str:
        """Which run this is; empty where run.json cannot tell."""
        description = self._known_description()
        return "" if description is None else description.run_uid

    def _known_description(self) -> RunDescription | None:
        """run.json; None where it is missing or damaged, which is told where it is read for its own content."""
        try:
            return self.read_description()
        except RunFolderError:
            return None

    def remove_result(self) -> None:
        """Forget how the run ended, because it goes on."""
        with explained_writes(self.result):
            self.result.unlink(missing_ok=True)

    def open_log(self) -> RunLog:
        """Send the messages of the logger "jepa_lab" to log.txt until the returned object is closed."""
        return RunLog(self.log)


def _delete_leftovers(run_root: Path) -> None:
    """What processes that were killed left unnamed; a living one is done with it in a moment."""
    for folder in run_root.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # named just now
            if time.time() - folder.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(folder)


def _give_name(folder: Path, run_root: Path, stem: str) -> Path:
    """Rename to the first of stem, stem-2, stem-3, ... that is free; the new path.

    A run folder is never empty, and a rename onto a folder that is not empty fails: that decides races.
    """
    number = 1
    while True:
        path = run_root / (stem if number == 1 else f"{stem}-{number}")
        try:
            os.rename(folder, path)
        except (FileExistsError, NotADirectoryError):
            number += 1
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            number += 1
        else:
            return path
