"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_ROWS = {
    "trained": "this run",
    "random_encoder": "control: random encoder",
    "raw_pixels": "control: raw pixels",
}


def percent(value: float | None) -> str:
    """An accuracy as a percentage; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f}%"


def print_summary(result: Mapping[str, Any], folder: Path, tracker: str) -> None:
    """Print accuracies with their controls, and what the run cost.

    Args:
        result: content of result.json.
        tracker: one line about where the tracker's copy is.
    """
    console = Console(highlight=False)
    console.print()
    print_probe(result, console)
    metrics = result["metrics"]
    rows = {
        "RankMe": f"{metrics['rankme_start']:.1f} at the start, {metrics['rankme_end']:.1f} at the end",
        "speed": f"{metrics['images_per_second']:,.0f} images/s in training",
        "time": f"{metrics['training_seconds']:.0f} s training; the command took {result['total_seconds']:.0f} s",
        "run folder": str(folder),
        "tracking": tracker,
    }
    skipped = sum(result.get(key, {"count": 0})["count"] for key in ("skipped_images", "probe_skipped_images"))
    if skipped:
        rows["skipped"] = f"{skipped:,} image(s) that cannot be decoded were left out; the run's log names them"
    if result["collapsed"]:
        rows["COLLAPSED"] = "the features stopped depending on the image; see the warnings in the run's log"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def print_probe(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the accuracies of the probe and its controls, or why there are none.

    Args:
        result: with `probe` (row -> evaluation) or `probe_skipped` (a sentence).
    """
    console = console or Console(highlight=False)
    if result.get("probe") is None:
        console.print(result["probe_skipped"], markup=False)
        return
    table = Table(title="Accuracy of a logistic regression on frozen features", title_justify="left")
    table.add_column("")
    for heading in ("validation", "test", "95% interval", "k-NN test"):
        table.add_column(heading, justify="right")
    for key, evaluation in result["probe"].items():
        logistic, knn = evaluation["logistic"], evaluation["knn"]
        interval = logistic["test_interval"]
        table.add_row(
            _ROWS[key],
            percent(logistic["validation_accuracy"]),
            percent(logistic["test_accuracy"]),
            "-" if interval is None else f"{100 * interval[0]:.2f} - {100 * interval[1]:.2f}",
            percent(knn["test_accuracy"]),
            style="bold" if key == "trained" else "",
        )
    console.print(table)
    for key, evaluation in result["probe"].items():
        for note in evaluation["logistic"]["notes"]:
            console.print(f"note on {_ROWS[key]}: {note}", markup=False)
