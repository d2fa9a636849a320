"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jepa_lab.measures import ACCURACY, headline, in_words, measure_of, number_of
from jepa_lab.monitors.base import NUM_CURVE_IMAGES, end_count_name, end_name
from jepa_lab.monitors.collapse import REMEDY
from jepa_lab.probes.random_control import no_better_than_random
from jepa_lab.tables.cells import Cell, Column, TextTable
from jepa_lab.tables.terminal import print_listing, print_text_table, print_wrapped
from jepa_lab.tables.widths import natural_width
from jepa_lab.training.phases import FINAL_PROBE, PHASES

_ROWS = {
    "trained": "this run",
    "other_encoder": "its other encoder",
    "random_encoder": "control: random encoder",
    "raw_pixels": "control: raw pixels",
}
_NO_SCORE = dict.fromkeys(("validation_accuracy", "test_accuracy", "test_interval"))


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
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
    console.print()
    metrics = result["metrics"]
    told = {"images": "images", "probe images": "probe_images"}
    rows = {name: result[key]["in_words"] for name, key in told.items() if key in result}
    rows |= {
        "RankMe": _rankme(metrics),
        "speed": f"{metrics['images_per_second']:,.0f} images/s in training",
        "time": f"{metrics['training_seconds']:.0f} s training; the command took {result['total_seconds']:.0f} s",
        **({"of which": _phases(result["seconds"])} if "seconds" in result else {}),  # not in an older result
        "run folder": str(folder),
        "tracking": tracker,
    }
    steps = int(metrics.get("skipped_steps") or 0)  # not in an older result
    if steps:
        rows["skipped steps"] = f"{steps:,}, because loss or gradients were not finite"
    skipped = sum(result.get(key, {"count": 0})["count"] for key in ("skipped_images", "probe_skipped_images"))
    if skipped:
        rows["skipped"] = f"{_counted(skipped, 'image')} that cannot be decoded; names are in the run's log"
    unread = sum(sum(result.get(key, {"unread_files": {}})["unread_files"].values()) for key in told.values())
    if unread:
        rows["left out"] = f"{_counted(unread, 'file')} in formats that are not read; names are in the run's log"
    print_listing(rows | _about_collapse(result), console)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _about_collapse(result: Mapping[str, Any]) -> dict[str, str]:
    """What the monitors said after the last epoch, where it was not good."""
    told = result.get("collapse", {"in_words": None})["in_words"]  # not in an older result
    if result["collapsed"]:
        return {"COLLAPSED": f"{told or 'see the warnings in the log'}. What may help: {REMEDY}"}
    return {} if told is None else {"WARNING": f"{told}. What may help: {REMEDY}"}


def _rankme(metrics: Mapping[str, Any]) -> str:
    """Of the fixed validation images before and after training, and of the training images where it was measured."""
    told = f"{metrics['rankme_start']:.1f} at the start, {metrics['rankme_end']:.1f} at the end"
    count = metrics.get(NUM_CURVE_IMAGES)  # not in an older result
    told += "" if count is None else f" ({count:,.0f} validation images)"
    of_training = metrics.get(end_name("rankme"))
    if of_training is None:
        return told
    return f"{told}, {of_training:.1f} ({metrics[end_count_name('rankme')]:,.0f} training images)"


def _phases(seconds: Mapping[str, Any]) -> str:
    """Where the time of the command went, in words; phases of less than half a second are left out."""
    took = {phase: seconds[phase] for phase in PHASES if phase in seconds}  # an older result knows fewer
    told = {phase: f"{phase.replace('_', ' ')} {_in_seconds(took[phase])}" for phase in took if took[phase] >= 0.5}
    rows = [(_ROWS[row].removeprefix("control: "), each) for row, each in seconds["final_probe_rows"].items()]
    if FINAL_PROBE in told and rows:
        told[FINAL_PROBE] += f" ({', '.join(f'{name} {_in_seconds(each)}' for name, each in rows)})"
    return ", ".join(told.values()) or "every phase took less than half a second"


def _in_seconds(value: float) -> str:
    return f"{value:.1f} s"


def print_probe(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the numbers of the probes and their controls, or why there are none.

    Args:
        result: with `probe` (row -> probe -> outcome) and `probe_titles`, or `probe_skipped` (a sentence); that of
            `jepa-lab probe` with `test_split`, the looks at it.
    """
    console = console or Console(highlight=False)
    for number, table in enumerate(probe_tables(result, console.width)):
        if number:
            console.print()
        print_text_table(table, (), console)
    missing = lesson_missing(result)
    for sentence in [*([] if missing is None else [missing]), *probe_sentences(result)]:
        print_wrapped(sentence, console)


def probe_tables(result: Mapping[str, Any], width: int) -> list[TextTable]:
    """The numbers of the probes and their controls; none where nothing was probed.

    Args:
        result: as for `print_probe`. width: within which a single additional probe stands beside the first.
    """
    if result.get("probe") is None:
        return []
    rows, titles = result["probe"], result["probe_titles"]
    others = list(titles)[1:]
    single = len(others) == 1 and not rows["trained"][others[0]]["scores"][0]["key"]
    together = _method_table(rows, titles, others) if single else None
    if together is not None and natural_width(together) <= width:
        return [together]
    return [_method_table(rows, titles, ()), *([_others_table(rows, others)] if others else [])]


def lesson_missing(result: Mapping[str, Any]) -> str | None:
    """The sentence that training has brought nothing, where the controls say so: it comes before all others."""
    return None if result.get("probe") is None else no_better_than_random(result["probe"])


def probe_sentences(result: Mapping[str, Any]) -> list[str]:
    """What is to be known beside the tables: what was chosen, notes of the probes, how the test split was looked at."""
    if result.get("probe") is None:
        return [result["probe_skipped"]]
    rows, titles = result["probe"], result["probe_titles"]
    method = next(iter(titles))
    notes: dict[str, list[str]] = {}
    for key, outcomes in rows.items():
        for name, outcome in outcomes.items():
            for note in outcome["notes"]:
                notes.setdefault(note if name == method else f"{name}: {note}", []).append(_ROWS[key])
    told = [*_choices(rows, titles), *(f"note on {', '.join(where)}: {note}" for note, where in notes.items())]
    looks = result.get("test_split")
    return [*told, *([] if looks is None else [looks["in_words"]])]


def _choices(rows: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """What the validation split chose for each row, one sentence per probe."""
    found = []
    for name in names:
        where: dict[str, list[str]] = {}
        for key, outcomes in rows.items():
            choice = outcomes.get(name, {}).get("choice")  # an older result has none
            if choice:
                where.setdefault(choice, []).append(_ROWS[key])
        if where:
            told = "; ".join(f"{choice} ({', '.join(chosen)})" for choice, chosen in where.items())
            found.append(f"chosen on validation by {name}: {told}")
    return found


def _method_table(rows: Mapping[str, Any], titles: Mapping[str, str], beside: Sequence[str]) -> TextTable:
    """The headline numbers, one row for this run and each control."""
    method, split = next(iter(titles)), _split_of(rows, beside)
    measures = {name: measure_of(rows["trained"][name]["scores"][0]) for name in (method, *beside)}
    told = {name: name if measures[name] == ACCURACY else f"{name} {in_words(measures[name])}" for name in beside}
    headings = ("validation", "test", "95% interval", *(f"{told[name]} {split}" for name in beside))
    columns = (Column("", numeric=False), *map(Column, headings))
    lines = []
    for key, outcomes in rows.items():
        score = outcomes[method]["scores"][0] if method in outcomes else _NO_SCORE
        interval = score["test_interval"]
        others = (outcomes[name]["scores"][0] if name in outcomes else None for name in beside)
        texts = (
            _ROWS[key],
            percent(number_of(score, "validation")),
            percent(number_of(score, "test")),
            "-" if interval is None else f"{100 * interval[0]:.2f} - {100 * interval[1]:.2f}",
            *(_number(other, split) for other in others),
        )
        lines.append(tuple(Cell(text, bold=key == "trained") for text in texts))
    return TextTable(f"{headline(measures[method])} of {titles[method]}", columns, tuple(lines))


def _others_table(rows: Mapping[str, Any], names: Sequence[str]) -> TextTable:
    """The scores of the additional probes, one line each."""
    split = _split_of(rows, names)
    chosen_from = any(score["is_for_a_choice"] for name in names for score in rows["trained"][name]["scores"])
    untested = "; v: validation" if split == "test" and chosen_from else ""
    lines = []
    measures = {measure_of(score) for name in names for score in rows["trained"][name]["scores"]}
    for name in names:
        for number, score in enumerate(rows["trained"][name]["scores"]):
            told = [in_words(measure_of(score))] if measures != {ACCURACY} else []
            label = ", ".join([name, *filter(None, [score["label"]]), *told])
            found = [outcomes[name]["scores"][number] if name in outcomes else None for outcomes in rows.values()]
            lines.append((Cell(label), *(Cell(_number(each, split)) for each in found)))
    columns = (Column("", numeric=False), *(Column(_ROWS[key].removeprefix("control: ")) for key in rows))
    title = "Accuracy of the other probes" if measures == {ACCURACY} else "The other probes"
    return TextTable(f"{title} ({split}{untested})", columns, tuple(lines))


def _split_of(rows: Mapping[str, Any], names: Sequence[str]) -> str:
    """The split whose numbers of these probes are shown."""
    scores = [score for name in names for score in rows["trained"][name]["scores"]]
    return "test" if any(number_of(score, "test") is not None for score in scores) else "validation"


def _number(score: Mapping[str, Any] | None, split: str) -> str:
    """A score, with the half width of its interval where it is one of several; a dash where there is none."""
    if score is None:
        return "-"
    mark = ""
    if split == "test" and score["is_for_a_choice"]:
        mark, split = "v ", "validation"
    interval = score[f"{split}_interval"]
    spread = f" ±{50 * (interval[1] - interval[0]):.1f}" if interval is not None and score["key"] else ""
    return f"{mark}{percent(number_of(score, split))}{spread}"
