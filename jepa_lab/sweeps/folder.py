"""The sweep folder: the plan, Optuna's journal, a run folder for each trial, and the report.

```
sweeps/<name>-<plan digest>/
  config.yaml       the ablation file as it was given
  plan.json         what was planned: a sweep of another plan is refused
  journal.log       Optuna's study
  trials/           a run root with the run folder of every trial
  configs/          the resolved pipeline of every trial, which its worker reads
  report/           tables, figures, page
  references/       what was found about encoders from elsewhere; references.json says which
  tasks/            tasks and replies of workers on other machines (sweeps/attempts.py)
  shares/           what machines that train a share of the trials by hand agree on, and their workers' logs
  claims/           a lock file for each trial, held by the worker that is at work on it
  best.yaml         the pipeline at the point that a search chose
  run.json  metrics.jsonl  result.json  mirror.json    the record of the sweep itself, mirrored like that of a run
  sweep.lock  log.txt  worker-<slot>.log
  mps-<gpu>/        logs of NVIDIA MPS, where the sweep started it
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import explained_writes, write_text_atomically
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.records import read_record, write_record
from jepa_lab.tracking.run_folder import RunFolder

PLAN_VERSION = 1


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep; made by `open_or_create`, read by `open`."""

    path: Path

    @classmethod
    def open_or_create(cls, root: Path, name: str, ablation: str, plan: Mapping[str, Any]) -> SweepFolder:
        """The folder `root/name`, made if it is not there.

        Args:
            ablation: text of the ablation file. plan: JSON values for plan.json.
        Raises:
            RunFolderError: if it cannot be written. RunStopped: if the disk is full.
        """
        folder = cls(root / name)
        with explained_writes(folder.path):
            for part in (folder.trials, folder.configs, folder.report, folder.claims):
                part.mkdir(parents=True, exist_ok=True)
            if not folder.plan.exists():  # plan.json comes last: a folder without it is not yet a sweep
                write_text_atomically(folder.record.config, ablation)
                write_record(folder.plan, "plan", PLAN_VERSION, plan)
        return folder

    @classmethod
    def open(cls, path: Path) -> SweepFolder:
        """An existing sweep folder.

        Raises:
            RunFolderError: if it is not one.
        """
        folder = cls(path)
        if not folder.plan.is_file():
            raise RunFolderError(
                f"{path} is not a sweep folder: it has no plan.json; give the path that `jepa-lab sweep` printed"
            )
        return folder

    @property
    def plan(self) -> Path:
        """plan.json"""
        return self.path / "plan.json"

    @property
    def journal(self) -> Path:
        """journal.log"""
        return self.path / "journal.log"

    @property
    def trials(self) -> Path:
        """trials/"""
        return self.path / "trials"

    @property
    def configs(self) -> Path:
        """configs/"""
        return self.path / "configs"

    @property
    def shares(self) -> Path:
        """shares/"""
        return self.path / "shares"

    def config(self, role: str, number: int) -> Path:
        """The resolved pipeline of a trial."""
        return self.configs / f"{role}-{number:04d}.yaml"

    @property
    def claims(self) -> Path:
        """claims/"""
        return self.path / "claims"

    def claim(self, name: str) -> Path:
        """The lock file of a trial or reference, as an absolute path."""
        return self.claims.absolute() / f"{name}.lock"

    @property
    def report(self) -> Path:
        """report/"""
        return self.path / "report"

    @property
    def best(self) -> Path:
        """best.yaml"""
        return self.path / "best.yaml"

    @property
    def record(self) -> RunFolder:
        """The sweep's own record: the same files as a run's, so that the same mirror can follow it."""
        return RunFolder(self.path)

    def lock(self) -> FileLock:
        """Held while a process works on the sweep."""
        return FileLock(self.path / "sweep.lock", f"the sweep {self.path}")

    def read_plan(self) -> dict[str, Any]:
        """The content of plan.json; RunFolderError if it is damaged."""
        return read_record(self.plan, "plan", PLAN_VERSION)
