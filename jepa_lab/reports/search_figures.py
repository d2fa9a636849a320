"""Figures of a search: its history, which parameters mattered, and where the good points lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jepa_lab.figures.style import Drawing, Theme, empty_figure, label, lines_of
from jepa_lab.measures import is_share
from jepa_lab.reports import numbers
from jepa_lab.reports.content import HAS_RESULT, ReportInput, SearchInput
from jepa_lab.reports.numbers import scale_for
from jepa_lab.reports.statistics import mean_interval

_LOG_RATIO = 30
"""A positive parameter whose values spread wider than this is drawn on a logarithmic axis."""
_MOST_VALUES = 12
_INCHES_A_LINE = 0.15
"""Of the values beside an axis."""


def search_drawings(content: ReportInput) -> list[Drawing]:
    """The figures that the search has data for; none outside a search."""
    if content.search is None:
        return []
    found = [
        history_drawing(content, content.search),
        importances_drawing(content.search),
        parallel_drawing(content, content.search),
    ]
    return [drawing for drawing in found if drawing is not None]


def history_drawing(content: ReportInput, search: SearchInput) -> Drawing | None:
    """The value of every trial and the best so far."""
    history = search.history.dropna(subset=["value"])
    if history.empty:
        return None
    factor, unit = (100.0, "%") if is_share(content.metric) else (1.0, "")

    def draw(theme: Theme) -> Any:
        figure = empty_figure(3.4, theme.width)
        axes = figure.subplots()
        axes.plot(
            history["number"], factor * history["value"], "o", color=theme.colours[0], markersize=4.5, label="a trial"
        )
        axes.step(history["number"], factor * history["best"], where="post", color=theme.ink, label="best so far")
        axes.set_xlabel("trial")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(label(content.metric + (f", {unit}" if unit else "")))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    scale = scale_for(content.metric, [mean_interval([value]) for value in history["value"]])
    low, high = float(history["value"].min()), float(history["value"].max())
    best = high if content.higher_is_better else low
    trial = history.loc[history["value"] == best, "number"].iloc[0]
    alt = (
        f"{len(history)} of {len(search.history)} trials have a value, from {scale.value(low)}{unit} to "
        f"{scale.value(high)}{unit}; the best, {scale.value(best)}{unit}, is trial {trial}."
    )
    return Drawing("history", "History of the search", alt, draw)


def importances_drawing(search: SearchInput) -> Drawing | None:
    """A bar for each parameter, the most important first."""
    if not search.importances:
        return None
    ordered = sorted(search.importances.items(), key=lambda item: -item[1])

    def draw(theme: Theme) -> Any:
        names = [label(name, theme.wrap) for name, _ in ordered]
        figure = empty_figure(1.0 + 0.2 * lines_of(names) + 0.12 * len(names), theme.width)
        axes = figure.subplots()
        axes.barh(range(len(names)), [share for _, share in ordered], height=0.62, color=theme.colours[0])
        for place, (_, share) in enumerate(ordered):
            axes.text(share, place, f" {share:.2f}", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label("share of the variation of the metric (fANOVA)", 30))
        return figure

    alt = f"Importance of each parameter: {', '.join(f'{name} {share:.2f}' for name, share in ordered)}."
    return Drawing("importances", "Which parameters mattered", alt, draw)


def parallel_drawing(content: ReportInput, search: SearchInput) -> Drawing | None:
    """Parallel coordinates: a line a trial through its parameters, coloured by the metric, the best ones on top."""
    trials = content.trials
    tried = trials[(trials["role"] == "search") & trials["status"].isin(HAS_RESULT)].dropna(subset=[content.metric])
    if len(tried) < 2 or not search.parameters:
        return None
    tried = tried.sort_values(content.metric, ascending=content.higher_is_better, kind="stable")

    def draw(theme: Theme) -> Any:
        return _draw_parallel(tried, content, search.parameters, theme)

    best = tried.iloc[-1]
    parts = [f"{name} {_written(best[name])}" for name in search.parameters if _is_known(best[name])]
    alt = f"{len(tried)} trials of the search; the best has {', '.join(parts)}."
    return Drawing("parallel", "Parameters of the search and their results", alt, draw)


def _draw_parallel(tried: pd.DataFrame, content: ReportInput, parameters: Sequence[str], theme: Theme) -> Any:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap, Normalize

    factor, unit = (100.0, ", %") if is_share(content.metric) else (1.0, "")
    values = factor * tried[content.metric].to_numpy(dtype=float)
    spread = Normalize(values.min(), values.max() if values.max() > values.min() else values.min() + 1)
    shades = colormaps["cividis"](np.linspace(*theme.scale, 256))
    colours = ListedColormap(shades if content.higher_is_better else shades[::-1])
    room = 1.5 if theme.columns == 2 else 1.1  # of each parameter, its name and its values
    height = max(4.4, 0.9 + _INCHES_A_LINE * max(_lines_of_names(tried[name]) for name in parameters))
    figure = empty_figure(height, max(theme.width, room * (len(parameters) + 1)))
    axes = figure.subplots()
    most_lines = int((height - 0.9) / _INCHES_A_LINE)
    places = np.column_stack(
        [_place_axis(axes, index, tried[name], most_lines, theme) for index, name in enumerate(parameters)]
    )
    # One artist for all lines and one for all marks: a search may have thousands.
    across = np.broadcast_to(np.arange(len(parameters)), places.shape)
    shade = colours(spread(values))
    lines = LineCollection(list(np.dstack([across, places])), colors=shade, linewidths=1.4, alpha=0.85, zorder=2)
    axes.add_collection(lines)
    marks = np.repeat(shade, len(parameters), axis=0)
    axes.scatter(across.ravel(), places.ravel(), c=marks, s=9, alpha=0.85, linewidths=0, zorder=2)
    axes.set_xticks(
        range(len(parameters)),
        [label(name.replace(".", ". "), int(10.7 * room)).replace(". ", ".") for name in parameters],
    )
    axes.set_yticks([])
    axes.set_xlim(-0.15, len(parameters) - 0.35)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False)
    bar = figure.colorbar(ScalarMappable(spread, colours), ax=axes, pad=0.02)
    bar.set_label(label(content.metric + unit))
    return figure


def _place_axis(axes: Any, index: int, column: pd.Series, most_lines: int, theme: Theme) -> np.ndarray:
    """Draw the vertical axis of a parameter with its values; where on it (0 to 1) each trial lies."""
    axes.axvline(index, color=theme.muted, linewidth=1, zorder=0)
    heights, ticks = _heights(column)
    for height, text in _apart(ticks, most_lines):
        # It covers the lines beneath: through a paler box they would strike the value out.
        box = {"facecolor": theme.paper, "edgecolor": "none", "pad": 1.0}
        where = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (index, height), fontsize=7.5, bbox=box, zorder=5, **where)
    return heights


def _apart(ticks: Sequence[tuple[float, str]], most_lines: int) -> list[tuple[float, str]]:
    """The ticks that keep clear of those below them; the uppermost one replaces what is in its way.

    Args:
        most_lines: that the axis has room for.
    """
    kept: list[tuple[float, str]] = []
    for tick in sorted(ticks):
        is_last = tick[0] == max(height for height, _ in ticks)
        while kept and is_last and len(kept) > 1 and not _is_clear(kept[-1], tick, most_lines):
            kept.pop()
        if not kept or _is_clear(kept[-1], tick, most_lines):
            kept.append(tick)
    return kept


def _is_clear(lower: tuple[float, str], upper: tuple[float, str], most_lines: int) -> bool:
    lines = lines_of([lower[1], upper[1]]) / 2
    return upper[0] - lower[0] >= lines / most_lines


def _heights(column: pd.Series) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """The column's values between 0 and 1, and some of them as ticks.

    A parameter that a trial does not have is NaN: its line has a gap there.
    """
    known = column.dropna()
    if known.empty:
        return np.full(len(column), math.nan), []
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        names = sorted({_written(value) for value in known})
        place = {name: _between(index, len(names)) for index, name in enumerate(names)}
        every = -(-len(names) // _MOST_VALUES)
        ticks = [(place[name], label(name, 18)) for name in names[::every]]
        is_known = column.notna()
        return np.array(
            [place[_written(value)] if there else math.nan for value, there in zip(column, is_known, strict=True)]
        ), ticks
    return _numeric_heights(column.to_numpy(dtype=float), sorted(set(known.astype(float))))


def _lines_of_names(column: pd.Series) -> int:
    """Lines that the values of a parameter take beside their axis; numbers are left out where they are too close."""
    _, ticks = _heights(column)
    tallest = max((text.count("\n") + 1 for _, text in ticks), default=0)
    return 0 if pd.api.types.is_numeric_dtype(column) else tallest * len(ticks)


def _numeric_heights(values: np.ndarray, different: Sequence[float]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """The same for numbers, of which `different` are those that occur, in order."""
    low, high = different[0], different[-1]
    if low == high:
        return np.where(np.isnan(values), math.nan, 0.5), [(0.5, _written(low))]
    if low > 0 and high / low > _LOG_RATIO:
        marks = np.geomspace(low, high, 5)
        return np.log(values / low) / np.log(high / low), [(_between(i, 5), _written(m)) for i, m in enumerate(marks)]
    marks = np.array(different) if len(different) <= 5 else np.linspace(low, high, 5)
    return (values - low) / (high - low), [(float((m - low) / (high - low)), _written(m)) for m in marks]


def _between(index: int, number: int) -> float:
    return index / (number - 1) if number > 1 else 0.5


def _written(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return numbers.short_value(value, 3) if isinstance(value, (int, float)) else str(value)


def _is_known(value: Any) -> bool:
    """Whether the trial has the parameter."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))
