"""`jepa-lab ls` and `jepa-lab show`: what the run folders say about their runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.summary import percent, print_summary
from jepa_lab.tables.cells import Cell, Column, TextTable
from jepa_lab.tables.terminal import print_listing, print_text_table
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder

State = Literal["finished", "running", "stopped", "failed", "unreadable"]
_SHOWN = ("train/loss", "validation/loss", "probe/online_validation_accuracy", "monitor/rankme")


@dataclass(frozen=True)
class RunLine:
    """A run in a few words.

    Attributes:
        state: "stopped" for one that can be resumed; "unreadable" where a file of it is damaged.
        started: Unix time of its first start; None where nothing says it.
        step: the last one that was logged.
        validation_accuracy, random_encoder, raw_pixels: of the final probe on the validation split.
        note: why it ended, or what cannot be read; empty where there is nothing to say.
    """

    name: str
    state: State
    started: float | None
    step: int
    validation_accuracy: float | None
    random_encoder: float | None
    raw_pixels: float | None
    collapsed: bool
    note: str


def list_runs(run_root: Path) -> list[RunLine]:
    """The runs of a folder, those that began last at the end.

    Raises:
        ConfigError: there is no such folder.
    """
    if not os.path.isdir(run_root):
        raise ConfigError(f"there is no folder {run_root}; --runs names the folder of the run folders")
    folders = [path for path in run_root.iterdir() if (path / "config.yaml").is_file()]
    lines = [run_line(RunFolder(path)) for path in folders if (path / "checkpoints").is_dir()]
    return sorted(lines, key=lambda line: (line.started or 0.0, line.name))


def run_line(folder: RunFolder) -> RunLine:
    """A run in a few words, also where some of its files are damaged."""
    try:
        described = folder.read_description().started if folder.description.exists() else None
        rows = read_metrics(folder.metrics)
        result = folder.read_result() or {}
    except RunFolderError as error:
        return RunLine(folder.name, "unreadable", None, 0, None, None, None, False, str(error))
    metrics = result.get("metrics", {})
    return RunLine(
        name=folder.name,
        state=_state(folder, result),
        started=described,
        step=rows[-1].step if rows else 0,
        validation_accuracy=metrics.get("probe/validation_accuracy"),
        random_encoder=metrics.get("random_encoder/validation_accuracy"),
        raw_pixels=metrics.get("raw_pixels/validation_accuracy"),
        collapsed=bool(metrics.get("collapsed")),
        note=str(result.get("error", "")).replace("KeyboardInterrupt", "stopped by SIGINT"),
    )


def _state(folder: RunFolder, result: Mapping[str, Any]) -> State:
    if folder.is_alive():
        return "running"
    ended: dict[str, State] = {"FINISHED": "finished", "FAILED": "failed"}
    return ended.get(result.get("status", ""), "stopped")


def print_runs(lines: list[RunLine], run_root: Path) -> None:
    """A table, or a sentence where there is no run."""
    console = Console(highlight=False)
    if not lines:
        console.print(f"no run in {run_root} yet; `jepa-lab run digits` makes one")
        return
    columns = (
        Column("run", numeric=False),
        Column("state", numeric=False, group=1),
        Column("step", group=1),
        Column("validation", group=2),
        Column("random", group=2),
        Column("raw pixels", group=2),
        Column("started", numeric=False, group=3),
    )
    rows = []
    for line in lines:
        began = "-" if line.started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(line.started))
        state = f"{line.state}, collapsed" if line.collapsed else line.state
        accuracies = (line.validation_accuracy, line.random_encoder, line.raw_pixels)
        rows.append(tuple(map(Cell, (line.name, state, f"{line.step:,}", *map(percent, accuracies), began))))
    notes = [f"{line.name}: {line.note}" for line in lines if line.note and line.state in ("failed", "unreadable")]
    print_text_table(TextTable(f"Runs in {run_root}; accuracies on validation", columns, tuple(rows)), notes, console)


def print_run(folder: RunFolder) -> None:
    """What a finished run printed at its end; of any other how far it has come.

    Raises:
        RunFolderError: its files are damaged.
    """
    result = folder.read_result()
    if result is not None and result["status"] == "FINISHED":
        tracked = result.get("tracking") is not None  # an older result says nothing
        print_summary(result, folder.path, "MLflow; `jepa-lab ui` opens it" if tracked else "none")
        return
    line = run_line(folder)
    rows = read_metrics(folder.metrics)
    last = {name: value for row in rows for name, value in row.metrics.items() if name in _SHOWN and value}
    told = {"run": folder.name, "state": line.state, "step": f"{line.step:,}"}
    told |= {name: f"{value:.4g}" for name, value in last.items()}
    told |= {"why": line.note} if line.note else {}
    if line.state in ("stopped", "failed"):
        told["resume"] = f"jepa-lab run --resume {folder.path}"
    print_listing(told, Console(highlight=False))


def run_as_json(folder: RunFolder) -> dict[str, Any]:
    """A run as JSON values: its line, and result.json where it has ended."""
    return {**asdict(run_line(folder)), "folder": str(folder.path), "result": folder.read_result()}
