"""The report of one run: its numbers, figures and conditions as one page, and the figures in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jepa_lab.build import build_model, prepare_data, prepare_probe_data
from jepa_lab.config.loading import load_resolved
from jepa_lab.data.survey import load_surveys
from jepa_lab.errors import RunFolderError
from jepa_lab.figures.runs.base import SeenRun
from jepa_lab.figures.style import Drawing
from jepa_lab.monitors.spectra import Spectra
from jepa_lab.reports.html import Picture, Section, picture_of, render_html
from jepa_lab.reprobe import divided_as_trained, refuse_changed_data
from jepa_lab.run_figures import DrawnFigures, collect_drawings, look_at_run, write_figure
from jepa_lab.run_list import RunLine, run_line
from jepa_lab.summary import lesson_missing, probe_sentences, probe_tables
from jepa_lab.tables.cells import Cell, Column, TextTable
from jepa_lab.tracking.atomic import explained_writes, write_text_atomically
from jepa_lab.tracking.environment import environment_in_words
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.devices import Compute, memory_errors

PAGE = Path("report") / "report.html"
_WIDE = 100
"""Columns of the first table, beside which a single additional probe has room on the page."""
_RECIPE = (
    "pipeline", "seed", "dataset", "masker", "target", "loss", "regularizer", "augmentation", "ema_momentum",
    "encoder_size", "encoder_position", "predictor_size", "predictor_position", "context_batching", "parent_run",
)  # fmt: skip
"""Tags of a run that say what it did."""


@dataclass(frozen=True)
class RunReport:
    """What was written.

    Attributes:
        files: the figures, the page last.
        figures: what became of each.
    """

    files: list[Path]
    figures: DrawnFigures


def write_run_report(folder: RunFolder) -> RunReport:
    """Draw every figure of a run and write `report/report.html`; the newest checkpoint is looked at.

    Works for a trial of a sweep and for a run that has not finished, too; what is not there yet is left out.

    Raises:
        RunFolderError: there is no checkpoint, or the images have changed. DataError: the images are missing.
        RunStopped: memory or disk is full.
    """
    line = run_line(folder)
    if line.state == "unreadable":
        raise RunFolderError(line.note)
    pictures: list[Picture] = []
    files: list[Path] = []

    def use(drawing: Drawing) -> None:
        pictures.append(picture_of(drawing))
        files.append(write_figure(drawing, folder.figures))

    with folder.open_log():
        figures = collect_drawings(_look(folder), after_run=False, use=use)
    summary, verdict = _summary(folder, line), lesson_missing(folder.read_result() or {})
    page = render_html(folder.name, summary, _sections(folder, pictures, figures), verdict and f"{verdict}.")
    with explained_writes(folder.path / PAGE):
        (folder.path / PAGE).parent.mkdir(exist_ok=True)
    write_text_atomically(folder.path / PAGE, page)
    return RunReport([*files, folder.path / PAGE], figures)


def _look(folder: RunFolder) -> SeenRun:
    """The run as its figures see it, computed in single precision, on a GPU if there is one."""
    pipeline = divided_as_trained(load_resolved(folder.config.read_text(encoding="utf-8"), str(folder.config)), folder)
    checkpoint = CheckpointStore(folder.checkpoints).load()
    known, _ = load_surveys(folder.path / "data.json")
    compute = Compute(torch.device("cuda" if torch.cuda.is_available() else "cpu"), "fp32", False)
    with memory_errors(pipeline.training):
        data = prepare_data(pipeline, compute.device, known.get("data"))
        refuse_changed_data(folder, data.digest)
        probe_data = prepare_probe_data(pipeline, data, compute.device, known.get("probe.data"))
        model = build_model(pipeline, data.train.images.shape[1])
        model.load_state_dict(checkpoint.model)
        spectra = Spectra.of(checkpoint.run.monitor)
        return look_at_run(pipeline, model.to(compute.device), data, probe_data, compute, spectra, folder)


def _summary(folder: RunFolder, line: RunLine) -> list[str]:
    """What kind of run this is, in sentences."""
    description, result = folder.read_description(), folder.read_result() or {}
    state = {
        "finished": f"A run that finished after {line.step:,} steps",
        "running": f"A run that is still being worked on, at step {line.step:,}",
        "failed": f"A run that failed at step {line.step:,}",
    }.get(line.state, f"A run that was stopped at step {line.step:,}")
    tags = description.tags
    told = [
        f"{state}: pipeline {tags['pipeline']}, seed {tags['seed']}, data set {tags['dataset']}, masker "
        f"{tags['masker']}, encoder {tags['encoder_size']}."
    ]
    told += [f"Images: {result['images']['in_words']}."] if "images" in result else []
    told += [f"It ended with: {line.note}"] if line.note else []
    collapse = (result.get("collapse") or {}).get("in_words")
    return told + ([f"Collapse: {collapse}."] if collapse else [])


def _sections(folder: RunFolder, pictures: list[Picture], figures: DrawnFigures) -> list[Section]:
    result = folder.read_result() or {}
    sections = _result_sections(result)
    left_out = [f"The figure {name!r} is left out: {why}." for name, why in figures.left_out.items()]
    left_out += [f"The figure {name!r} could not be drawn; the log says why." for name in figures.failed]
    sections.append(Section("figures", "Figures", pictures=pictures, footnotes=left_out))
    if result.get("metrics"):
        sections.append(Section("numbers", "Numbers", _numbers_table(result["metrics"])))
    sections.append(Section("recipe", "Recipe", _recipe_table(folder)))
    sections.append(Section("conditions", "Conditions", notes=_conditions(folder)))
    return sections


def _result_sections(result: Mapping[str, Any]) -> list[Section]:
    if "probe" not in result:
        return []
    tables, sentences = probe_tables(result, _WIDE), probe_sentences(result)
    if not tables:
        return [Section("result", "Result", notes=sentences)]
    first, *others = tables
    more = [Section("other-probes", "Other probes", table) for table in others]
    return [Section("result", "Result", first, sentences), *more]


def _numbers_table(metrics: Mapping[str, float | None]) -> TextTable:
    rows = tuple(
        (Cell(name), Cell("-" if value is None else f"{value:.6g}", value)) for name, value in sorted(metrics.items())
    )
    return TextTable("Every number of result.json", (Column("number", numeric=False), Column("value")), rows)


def _recipe_table(folder: RunFolder) -> TextTable:
    tags = folder.read_description().tags
    rows = tuple((Cell(name.replace("_", " ")), Cell(tags[name])) for name in _RECIPE if name in tags)
    columns = (Column("part", numeric=False), Column("choice", numeric=False))
    return TextTable("What was run; config.yaml in the run folder has every value", columns, rows)


def _conditions(folder: RunFolder) -> list[str]:
    try:
        environment = folder.read_environment()
    except RunFolderError as error:
        return [str(error)]
    return [*environment_in_words(environment), f"Command: {shlex.join(environment['command'])}"]
