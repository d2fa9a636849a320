"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_ROWS = {
    "trained": "this run",
    "other_encoder": "its other encoder",
    "random_encoder": "control: random encoder",
    "raw_pixels": "control: raw pixels",
}
_NUMBERS = ("validation_accuracy", "test_accuracy", "test_interval")


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
        table.add_row(name, Text(value))  # a folder may be called [b]
    console.print(table)


def print_probe(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the accuracies of the probes and their controls, or why there are none.

    Args:
        result: with `probe` (row -> probe -> outcome) and `probe_titles`, or `probe_skipped` (a sentence).
    """
    console = console or Console(highlight=False)
    if result.get("probe") is None:
        console.print(result["probe_skipped"], markup=False)
        return
    rows, titles = result["probe"], result["probe_titles"]
    method, *others = titles
    single = len(others) == 1 and not rows["trained"][others[0]]["scores"][0]["key"]
    beside = others if single and _fits(_method_table(rows, method, others), console) else []
    # Not the tables' own titles, which are folded to their width.
    console.print(f"Accuracy of {titles[method]}", style="italic", markup=False)
    console.print(_method_table(rows, method, beside))
    if others and not beside:
        split = _split_of(rows, others)
        chosen_from = any(score["is_for_a_choice"] for name in others for score in rows["trained"][name]["scores"])
        untested = "; v: validation" if split == "test" and chosen_from else ""
        console.print(f"Accuracy of the other probes ({split}{untested})", style="italic", markup=False)
        console.print(_others_table(rows, others, split))
    notes: dict[str, list[str]] = {}
    for key, outcomes in rows.items():
        for name, outcome in outcomes.items():
            for note in outcome["notes"]:
                notes.setdefault(note if name == method else f"{name}: {note}", []).append(_ROWS[key])
    for note, where in notes.items():
        console.print(f"note on {', '.join(where)}: {note}", markup=False)


def _method_table(rows: Mapping[str, Any], method: str, beside: Sequence[str]) -> Table:
    """The headline accuracies, one row for this run and each control."""
    split = _split_of(rows, beside)
    table = Table()
    table.add_column("")
    for heading in ("validation", "test", "95% interval", *(f"{name} {split}" for name in beside)):
        table.add_column(heading, justify="right")
    for key, outcomes in rows.items():
        score = outcomes[method]["scores"][0] if method in outcomes else dict.fromkeys(_NUMBERS)
        interval = score["test_interval"]
        others = (outcomes[name]["scores"][0] if name in outcomes else None for name in beside)
        table.add_row(
            _ROWS[key],
            percent(score["validation_accuracy"]),
            percent(score["test_accuracy"]),
            "-" if interval is None else f"{100 * interval[0]:.2f} - {100 * interval[1]:.2f}",
            *(_accuracy(other, split) for other in others),
            style="bold" if key == "trained" else "",
        )
    return table


def _others_table(rows: Mapping[str, Any], names: Sequence[str], split: str) -> Table:
    """The scores of the additional probes, one line each."""
    table = Table()
    table.add_column("")
    for key in rows:
        table.add_column(_ROWS[key].removeprefix("control: "), justify="right")
    for name in names:
        for number, score in enumerate(rows["trained"][name]["scores"]):
            label = f"{name}, {score['label']}" if score["label"] else name
            found = [outcomes[name]["scores"][number] if name in outcomes else None for outcomes in rows.values()]
            table.add_row(label, *(_accuracy(each, split) for each in found))
    return table


def _fits(table: Table, console: Console) -> bool:
    unbounded = console.options.update(max_width=1000)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def _split_of(rows: Mapping[str, Any], names: Sequence[str]) -> str:
    """The split whose accuracies of these probes are shown."""
    scores = [score for name in names for score in rows["trained"][name]["scores"]]
    return "test" if any(score["test_accuracy"] is not None for score in scores) else "validation"


def _accuracy(score: Mapping[str, Any] | None, split: str) -> str:
    """A score, with the half width of its interval where it is one of several; a dash where there is none."""
    if score is None:
        return "-"
    mark = ""
    if split == "test" and score["is_for_a_choice"]:
        mark, split = "v ", "validation"
    interval = score[f"{split}_interval"]
    spread = f" ±{50 * (interval[1] - interval[0]):.1f}" if interval is not None and score["key"] else ""
    return f"{mark}{percent(score[f'{split}_accuracy'])}{spread}"
