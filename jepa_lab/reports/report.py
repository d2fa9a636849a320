"""The report of a sweep: tables, figures and one page, written into a folder or printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from jepa_lab.figures.style import Drawing
from jepa_lab.reports import numbers
from jepa_lab.reports.arm_figures import cost_drawing, curves_drawing, means_drawing
from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.finding import finding
from jepa_lab.reports.html import Picture, Section, picture_of, render_html
from jepa_lab.reports.latex import render_latex
from jepa_lab.reports.listings import plan_table, top_points_table, trials_table, winner_sentence
from jepa_lab.reports.long_form import csv_text
from jepa_lab.reports.markdown import escape_markdown, render_markdown
from jepa_lab.reports.monitor_figure import monitor_correlations, monitors_drawing
from jepa_lab.reports.monitor_names import monitor_title
from jepa_lab.reports.search_figures import search_drawings
from jepa_lab.reports.shown import best_and_worst
from jepa_lab.reports.table import Table, build_table
from jepa_lab.reports.table_csv import table_csv
from jepa_lab.tables.cells import Cell, Column, TextTable
from jepa_lab.tables.terminal import print_text_table, print_wrapped
from jepa_lab.tracking.atomic import explained_writes, sync_folder, write_bytes_atomically, write_text_atomically

FIGURES = "figures"
_BEST_PRINTED, _WORST_PRINTED = 20, 5
"""Arms of many that a terminal shows; three blocks of them still fit on a few screens."""
_BEST_ON_TOP, _WORST_ON_TOP = 25, 10
"""Arms of many in the page's first table; the one with all comes after the figures."""
_ALL_FIGURES = ("means", "curves", "cost", "monitors", "history", "importances", "parallel")


def write_report(content: ReportInput, folder: Path) -> list[Path]:
    """Write table.md, table.tex, table.csv, trials.csv, report.html and figures/*.png; each is whole or the old one.

    A figure of an earlier report that this one has no data for is removed.

    Args:
        folder: made where it is missing.
    Returns:
        The files, the page last.
    Raises:
        RunStopped: if the disk is full. RunFolderError: if the folder cannot be written.
    """
    content = cleaned(content)
    table = build_table(content)
    drawings = _drawings(content, table)
    with explained_writes(folder / FIGURES):
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    pictures = [picture_of(drawing) for drawing in drawings]
    files = [_write_text(folder / "table.md", _markdown(content, table))]
    files.append(_write_text(folder / "table.tex", render_latex(table.as_text(), table.footnotes)))
    files.append(_write_text(folder / "table.csv", table_csv(table)))
    files.append(_write_text(folder / "trials.csv", csv_text(content)))
    files += _write_figures(folder / FIGURES, pictures)
    page = render_html(content.title, [finding(table), *_summary(content)], _sections(content, table, pictures))
    return [*files, _write_text(folder / "report.html", page)]


def print_table(content: ReportInput, console: Console | None = None) -> None:
    """Print what was found, and the table with its footnotes; for a search, the best points and the winner first.

    Of many arms the best and the worst: the report's files have all.
    """
    content = cleaned(content)
    table, console = build_table(content), console or Console(highlight=False)
    print_wrapped(finding(table), console)
    console.print()
    points = top_points_table(content)
    if points is not None:
        print_text_table(points, (), console)
        console.print()
    winner = winner_sentence(content)
    if winner is not None:
        print_wrapped(winner, console)
        console.print()
    shown = best_and_worst(table, _BEST_PRINTED, _WORST_PRINTED)
    cut = [f"Lines: {shown.words} by {content.metric}; the report and its table.csv have all."] if shown.words else []
    print_text_table(shown.table.as_text(), [*cut, *table.footnotes], console)


def _drawings(content: ReportInput, table: Table) -> list[Drawing]:
    found = [means_drawing(table), *search_drawings(content), curves_drawing(content, table), cost_drawing(table)]
    return [drawing for drawing in [*found, monitors_drawing(content)] if drawing is not None]


def _write_text(path: Path, text: str) -> Path:
    # An arm's name may hold half of a surrogate pair, from a file name that is not UTF-8.
    write_text_atomically(path, text.encode(errors="backslashreplace").decode())
    return path


def _write_figures(folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    for picture in pictures:
        write_bytes_atomically(folder / f"{picture.drawing.name}.png", picture.light)
    drawn = {picture.drawing.name for picture in pictures}
    with explained_writes(folder):
        for name in _ALL_FIGURES:
            if name not in drawn:
                (folder / f"{name}.png").unlink(missing_ok=True)
        sync_folder(folder)
    return [folder / f"{picture.drawing.name}.png" for picture in pictures]


def _markdown(content: ReportInput, table: Table) -> str:
    notes = [note for note in (winner_sentence(content), *table.footnotes, *content.notes) if note is not None]
    tables: list[tuple[TextTable, Sequence[str]]] = [(table.as_text(), notes)]
    points, monitors = top_points_table(content), monitors_table(content)
    tables += [(each, ()) for each in (points, monitors) if each is not None]
    return f"{escape_markdown(finding(table))}\n\n{render_markdown(tables)}"


def _summary(content: ReportInput) -> list[str]:
    direction = "higher is better" if content.higher_is_better else "lower is better"
    kind = {
        "arms": "arms against a baseline",
        "grid": "a grid of arms against a baseline",
        "one_at_a_time": "one change at a time against a baseline",
        "search": "a search, its winner against a baseline",
    }[content.kind]
    seeds = ", ".join(map(str, content.seeds))
    if content.split_seeds is not None:
        seeds += f", with a validation split each ({', '.join(map(str, content.split_seeds))})"
    winner = winner_sentence(content)
    return [
        f"An ablation: {kind} ({content.baseline}). Metric: {content.metric}, {direction}. Seeds: {seeds}.",
        *([] if winner is None else [winner]),
        _fates(content.trials["status"]),
    ]


def _fates(status: pd.Series) -> str:
    """How many trials finished, and what became of the others."""
    if status.empty:
        return "Trials: none yet."
    others = status[status != "FINISHED"].value_counts()
    rest = ", ".join(f"{number} {str(fate).lower()}" for fate, number in others.items())
    return f"{(status == 'FINISHED').sum()} of {len(status)} trials finished{f' ({rest})' if rest else ''}."


def _sections(content: ReportInput, table: Table, pictures: Sequence[Picture]) -> list[Section]:
    points, monitors = top_points_table(content), monitors_table(content)
    shown = best_and_worst(table, _BEST_ON_TOP, _WORST_ON_TOP)
    top = shown.table.as_text()
    if shown.words:
        top = replace(top, caption=f"{top.caption}: {shown.words} by {content.metric}")
    sections = [Section("table", "Table", top, table.footnotes, files=("table.csv",))]
    if points is not None:
        sections.append(Section("points", "Best points of the search", points))
    if pictures:
        sections.append(Section("figures", "Figures", pictures=pictures))
    if monitors is not None:
        sections.append(Section("monitors", "Monitors without labels", monitors))
    if shown.words:
        sections.append(Section("arms", "All arms", table.as_text(), files=("table.csv",)))
    sections.append(Section("trials", "Trials", trials_table(content), files=("trials.csv",)))
    sections.append(Section("plan", "Plan", plan_table(content)))
    if content.notes:
        sections.append(Section("conditions", "Conditions", notes=content.notes))
    return sections


def monitors_table(content: ReportInput) -> TextTable | None:
    """The rank correlation of each label-free monitor with the metric; None where there is nothing to correlate."""
    found = monitor_correlations(content)
    if found.empty:
        return None
    rows = tuple(
        (
            Cell(monitor_title(row["monitor"], content)),
            Cell(numbers.correlation(row["rho"]), row["rho"]),
            Cell(str(row["n"]), float(row["n"])),
        )
        for row in found.to_dict("records")
    )
    caption = f"Spearman's rank correlation of the last value of each monitor with {content.metric}, over all trials"
    columns = (Column("monitor", numeric=False), Column("rho"), Column("trials"))
    return TextTable(caption, columns, rows)
