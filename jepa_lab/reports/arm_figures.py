"""Figures of the arms: means with intervals, learning curves, and what the accuracy costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jepa_lab.figures.style import (
    DASHES,
    MARKS,
    Drawing,
    Theme,
    empty_figure,
    label,
    legend_below,
    lines_of,
)
from jepa_lab.measures import is_share
from jepa_lab.monitors.base import curve_name
from jepa_lab.reports import numbers
from jepa_lab.reports.content import ReportInput, baseline_label
from jepa_lab.reports.monitor_names import monitor_title
from jepa_lab.reports.numbers import Scale
from jepa_lab.reports.shown import best_and_worst
from jepa_lab.reports.statistics import Interval
from jepa_lab.reports.table import Row, Table

_MOST_NAMED = 8
"""Arms with a colour of their own; more cannot be told apart."""
_BEST_DRAWN, _WORST_DRAWN = 25, 10
"""Arms of many that have a line of the figure of means, which is about as high as a screen then."""
_MOST_NUMBERED = _BEST_DRAWN + _WORST_DRAWN
"""Arms that a number in the figure of costs names."""
_TITLES = {
    "probe/online_validation_accuracy": "Validation accuracy of the online probe",
    "validation/loss": "Loss on validation images (arms with another loss or target do not compare)",
}
_PANELS = (*_TITLES, curve_name("rankme"))


def means_drawing(table: Table) -> Drawing | None:
    """Means with intervals and the seeds' values, and the paired differences from the baseline; None without any."""
    shown = best_and_worst(table, _BEST_DRAWN, _WORST_DRAWN)
    if not any(row.values for row in shown.arms):
        return None
    controls = [row for row in table.rows if not row.is_trained and row.values]

    def draw(theme: Theme) -> Any:
        return _means_figure(table, shown.arms, controls, theme)

    title = f"Means and differences from the baseline{f': {shown.words}' if shown.words else ''}"
    return Drawing("means", title, _means_alt(table, shown.table.rows), draw)


def _means_figure(table: Table, arms: Sequence[Row], controls: Sequence[Row], theme: Theme) -> Any:
    names = [label(row.name, theme.wrap) for row in arms]
    height = (0.8 + 0.17 * lines_of(names) + 0.16 * len(names)) * (3 - theme.columns)
    figure = empty_figure(height + 1.1, theme.width)
    left, right = figure.subplots(3 - theme.columns, theme.columns, sharey=True)
    _draw_means(left, arms, table.scale, theme)
    _draw_differences(right, arms, table.scale, theme)
    has_images = any(row.comparison is not None and row.comparison.crossed is not None for row in arms)
    handles = [*_mean_handles(theme, has_images=has_images), *_draw_controls(left, controls, table.scale, theme)]
    for axes in (left, right):
        axes.set_yticks(range(len(arms)), names)
        axes.set_ylim(len(arms) - 0.4, -0.6)
    # Beside the names, the titles of panels below each other have little room.
    width = 44 if theme.columns == 2 else 32
    left.set_title(label(f"{table.content.metric}{_unit(table.scale.unit)}", width))
    right.set_title(label(f"{_difference_words(table)} from the baseline{_unit(table.scale.difference_unit)}", width))
    legend_below(figure, handles, [handle.get_label() for handle in handles])
    return figure


def _difference_words(table: Table) -> str:
    """The validation images of a search chose its winner."""
    return "difference" if table.content.search is None else "optimistic difference"


def _unit(unit: str) -> str:
    return f", {unit}" if unit else ""


def _draw_means(axes: Any, arms: Sequence[Row], scale: Scale, theme: Theme) -> None:
    for place, row in enumerate(arms):
        if not row.values:
            where, box = axes.get_yaxis_transform(), {"facecolor": theme.paper, "edgecolor": "none", "pad": 1.5}
            style = {"va": "center", "style": "italic", "color": theme.muted, "bbox": box}
            axes.text(0.02, place, "no result", transform=where, **style)
            continue
        _interval_line(axes, place, row.mean, scale, _colour_of(row, theme))
        seeds = [scale.factor * value for value in row.values.values()]
        axes.plot(seeds, [place + 0.22] * len(seeds), "o", color=theme.muted, markersize=3.2, markerfacecolor="none")
    axes.margins(x=0.08)


def _draw_differences(axes: Any, arms: Sequence[Row], scale: Scale, theme: Theme) -> None:
    axes.axvline(0, color=theme.ink, linewidth=1)
    for place, row in enumerate(arms):
        if row.comparison is not None and row.comparison.difference.n:
            _wider_line(axes, place, row.comparison.over_images, scale, theme)
            _interval_line(axes, place, row.comparison.difference, scale, _colour_of(row, theme))
    axes.margins(x=0.08)
    axes.tick_params(axis="y", length=0)


def _colour_of(row: Row, theme: Theme) -> str:
    return theme.ink if row.role == "baseline" else theme.colours[0]


def _interval_line(axes: Any, place: float, interval: Interval, scale: Scale, colour: str) -> None:
    factor = scale.factor
    if not math.isnan(interval.low):
        axes.plot([factor * interval.low, factor * interval.high], [place] * 2, color=colour, linewidth=2)
    axes.plot([factor * interval.mean], [place], "o", color=colour, markersize=6)


def _wider_line(axes: Any, place: float, interval: Interval, scale: Scale, theme: Theme) -> None:
    """The interval over seeds and images, behind the one over seeds."""
    if not math.isnan(interval.low):
        ends = [scale.factor * interval.low, scale.factor * interval.high]
        axes.plot(ends, [place] * 2, "|-", color=theme.muted, linewidth=1, markersize=7)


def _mean_handles(theme: Theme, *, has_images: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    wider = Line2D([], [], color=theme.muted, marker="|", linewidth=1, label="95%, over seeds and images")
    return [
        Line2D([], [], color=theme.colours[0], marker="o", linewidth=2, label="mean, 95% interval"),
        Line2D([], [], color=theme.muted, marker="o", markerfacecolor="none", linestyle="", label="a seed"),
        *([wider] if has_images else []),
    ]


def _draw_controls(axes: Any, controls: Sequence[Row], scale: Scale, theme: Theme) -> list[Any]:
    """A line for each control and reference; one far from all arms would press them together, and its side is said."""
    low, high = axes.get_xlim()
    most = high - low  # of room that a control may add on its side
    handles = []
    styles = zip(itertools.cycle(theme.colours[1:]), itertools.cycle(("--", ":", "-.")), strict=False)
    for row, (colour, dashes) in zip(controls, styles, strict=False):
        value = scale.factor * row.mean.mean
        side = "left" if value < low - most else "right" if value > high + most else ""
        name = f"{row.role}: {row.name}, {scale.value(row.mean.mean)}" + (f" (out to the {side})" if side else "")
        at = {"left": low, "right": high}.get(side, value)
        handles.append(axes.axvline(at, color=colour, linestyle=dashes, label=name, visible=not side))
    inside = [line.get_xdata()[0] for line in handles]
    room = 0.05 * most
    axes.set_xlim(min([low, *(each - room for each in inside)]), max([high, *(each + room for each in inside)]))
    return handles


def _means_alt(table: Table, rows: Sequence[Row]) -> str:
    unit = f" {table.scale.unit}".rstrip()
    parts = []
    for row in rows:
        part = f"{row.name} {table.scale.interval(row.mean)}{unit}" if row.values else f"{row.name} has no result"
        if row.comparison is not None and row.comparison.difference.n:
            part += f", {_difference_words(table)} {table.scale.signed_interval(row.comparison.difference)}"
            if row.comparison.crossed is not None:
                part += f" over seeds, {table.scale.signed_ends(row.comparison.over_images)} over seeds and images"
        parts.append(part)
    return f"{table.content.metric} by arm with 95% intervals: {'; '.join(parts)}."


def curves_drawing(content: ReportInput, table: Table) -> Drawing | None:
    """Learning curves: the mean over the seeds, and the range of the seeds as a band; None without any curve."""
    curves = content.curves[content.curves["arm"].isin(content.arms)]
    panels = [name for name in _PANELS if (curves["name"] == name).any()]
    if not panels:
        return None
    named = _named_arms(table)
    others = [arm for arm in content.arms if arm not in named]
    by_arm = _curves_by_arm(curves, panels)

    def draw(theme: Theme) -> Any:
        from matplotlib.ticker import MaxNLocator

        handles, names = _curve_legend(named, len(others), content.baseline, theme)
        figure = empty_figure(2.2 * len(panels) + 0.5, theme.width)
        height = legend_below(figure, handles, names)
        figure.set_size_inches(theme.width, 2.2 * len(panels) + 0.5 + height)
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(grid, panels, strict=True):
            factor = 100.0 if is_share(panel) else 1.0
            for arm in others:
                _draw_curve(axes, by_arm.get((panel, arm)), factor, theme.muted, "-", 0.6, band=False)
            for place, arm in enumerate(named):
                colour, dashes = _line_style(place, theme)
                _draw_curve(axes, by_arm.get((panel, arm)), factor, colour, dashes, 1.5, band=True)
            title = _TITLES.get(panel) or monitor_title(panel, content)
            axes.set_title(label(title + (", %" if factor == 100 else ""), int(11 * theme.width)))
        grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        explanation = "epoch (0 is before training); lines are means, bands the range over the seeds"
        grid[-1].set_xlabel(label(explanation, int(12 * theme.width)))
        return figure

    return Drawing("curves", "Learning curves", _curves_alt(by_arm, panels, [*named, *others]), draw)


def _named_arms(table: Table) -> list[str]:
    """The arms with a colour of their own: the baseline first, then all, or the best of many."""
    arms = [row for row in table.rows if row.is_trained]
    if len(arms) <= _MOST_NAMED:
        return [row.name for row in arms]
    sign = -1 if table.content.higher_is_better else 1
    measured = sorted((row for row in arms[1:] if row.values), key=lambda row: sign * row.mean.mean)
    return [arms[0].name, *(row.name for row in measured[: _MOST_NAMED - 1])]


def _line_style(place: int, theme: Theme) -> tuple[str, Any]:
    """Colour and dashes of the arm at this place; the baseline is in ink."""
    return (theme.ink, "-") if place == 0 else (theme.colours[place - 1], DASHES[place - 1])


def _curve_legend(named: Sequence[str], num_others: int, baseline: str, theme: Theme) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    styles = [_line_style(place, theme) for place in range(len(named))]
    handles = [Line2D([], [], color=colour, linestyle=dashes, linewidth=1.5) for colour, dashes in styles]
    names = [label(baseline_label(arm) if arm == baseline else arm) for arm in named]
    if num_others:
        handles.append(Line2D([], [], color=theme.muted, linewidth=0.6))
        names.append(f"{num_others} other arms")
    return handles, names


def _curves_by_arm(curves: pd.DataFrame, panels: Sequence[str]) -> dict[tuple[str, str], pd.DataFrame]:
    """The curve of each panel and arm: by step the epoch, and the mean, lowest and highest value of the seeds."""
    by_step = (
        curves[curves["name"].isin(panels)]
        .groupby(["name", "arm", "step"], sort=True)
        .agg(epoch=("epoch", "mean"), mean=("value", "mean"), low=("value", "min"), high=("value", "max"))
    )
    return {(str(name), str(arm)): curve for (name, arm), curve in by_step.groupby(level=["name", "arm"])}


def _draw_curve(
    axes: Any, curve: pd.DataFrame | None, factor: float, colour: str, dashes: Any, width: float, band: bool
) -> None:
    """Draw what `_curves_by_arm` gives for a panel and an arm."""
    if curve is None:
        return
    axes.plot(curve["epoch"], factor * curve["mean"], color=colour, linestyle=dashes, linewidth=width)
    if band:
        axes.fill_between(
            curve["epoch"], factor * curve["low"], factor * curve["high"], color=colour, alpha=0.15, linewidth=0
        )


def _curves_alt(by_arm: Mapping[tuple[str, str], pd.DataFrame], panels: Sequence[str], arms: Sequence[str]) -> str:
    parts = []
    for panel in panels:
        factor, unit = (100.0, "%") if is_share(panel) else (1.0, "")
        ends = []
        for arm in arms[:_MOST_NAMED]:
            if (panel, arm) in by_arm:
                mean = factor * by_arm[(panel, arm)]["mean"]
                first, last = (numbers.short_number(float(mean.iloc[place])) for place in (0, -1))
                ends.append(f"{arm} from {first}{unit} to {last}{unit}")
        parts.append(f"{panel}: {', '.join(ends)}")
    return f"Mean over the seeds at the first and the last measurement. {'; '.join(parts)}."


def cost_drawing(table: Table) -> Drawing | None:
    """The metric against parameters and against training time; None where neither differs between arms."""
    arms = [row for row in table.rows if row.is_trained and row.values]
    panels = [_parameters_panel(arms), _time_panel(arms)]
    if all(len({cost for cost in panel.costs if not math.isnan(cost)}) < 2 for panel in panels):
        return None

    def draw(theme: Theme) -> Any:
        return _draw_costs(arms, panels, table, theme)

    parts = [
        f"{row.name} {table.scale.value(row.mean.mean)}{table.scale.unit}, {numbers.count(row.parameters)} parameters, "
        f"{numbers.duration(row.seconds)}"
        for row in best_and_worst(table, _BEST_DRAWN, _WORST_DRAWN).arms
        if row.values
    ]
    return Drawing("cost", f"{table.content.metric} against its cost", f"{'; '.join(parts)}.", draw)


@dataclass(frozen=True)
class _CostPanel:
    """A cost of each arm, the words for its axis, and how its ticks are written."""

    words: str
    costs: list[float]
    tick: Callable[[float, int], str]


def _parameters_panel(arms: Sequence[Row]) -> _CostPanel:
    costs = [row.parameters for row in arms]
    return _CostPanel("parameters of encoder and predictor", costs, lambda cost, _: numbers.count(cost))


def _time_panel(arms: Sequence[Row]) -> _CostPanel:
    longest = max((row.seconds for row in arms if not math.isnan(row.seconds)), default=0.0)
    size, unit = next(
        (size, unit)
        for size, unit in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
        if longest >= 2 * size or size == 1
    )
    return _CostPanel(f"training time, {unit}", [row.seconds / size for row in arms], lambda cost, _: f"{cost:.4g}")


@dataclass(frozen=True)
class _Points:
    """How the arms of the figure of costs look.

    Attributes:
        styles: colour and mark of each arm. numbered: whether a number at each point says which arm it is.
        handles, names: of the legend.
    """

    styles: list[tuple[str, str]]
    numbered: bool
    handles: list[Any]
    names: list[str]


def _points_of(arms: Sequence[Row], table: Table, theme: Theme) -> _Points:
    """A mark for each of a few arms, numbers for more; of many only the best have a colour and a name."""
    from matplotlib.lines import Line2D

    def name_of(row: Row) -> str:
        return baseline_label(row.name) if row.role == "baseline" else row.name

    numbered = _MOST_NAMED < len(arms) <= _MOST_NUMBERED
    if numbered:
        styles = [(theme.colours[0] if place else theme.ink, "o") for place in range(len(arms))]
        shown = list(zip(styles, [f"{place}: {name_of(row)}" for place, row in enumerate(arms)], strict=True))
    else:
        named = _named_arms(table)
        by_name = {arm: _mark_style(place, theme) for place, arm in enumerate(named)}
        styles = [by_name.get(row.name, (theme.muted, ".")) for row in arms]
        shown = [(style, name_of(row)) for style, row in zip(styles, arms, strict=True) if row.name in by_name]
        if len(shown) < len(arms):
            shown.append(((theme.muted, "."), f"{len(arms) - len(shown)} other arms"))
    handles = [Line2D([], [], color=colour, marker=mark, linestyle="") for (colour, mark), _ in shown]
    return _Points(styles, numbered, handles, [label(name) for _, name in shown])


def _draw_costs(arms: Sequence[Row], panels: Sequence[_CostPanel], table: Table, theme: Theme) -> Any:
    from matplotlib.ticker import MaxNLocator

    few, points = len(arms) <= _MOST_NAMED, _points_of(arms, table, theme)
    figure = empty_figure(4.0, theme.width)
    rows = -(-len(panels) // theme.columns)
    figure.set_size_inches(theme.width, 0.6 + 3.0 * rows + legend_below(figure, points.handles, points.names))
    grid = figure.subplots(rows, theme.columns, sharey=True, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=True):
        for place, (row, cost, (colour, mark)) in enumerate(zip(arms, panel.costs, points.styles, strict=True)):
            middle = table.scale.factor * row.mean.mean
            if few and not math.isnan(row.mean.low):
                ends = [table.scale.factor * end for end in (row.mean.low, row.mean.high)]
                axes.plot([cost, cost], ends, color=colour, linewidth=1, alpha=0.6)
            axes.plot([cost], [middle], marker=mark, color=colour, markersize=7 if few else 4)
            if points.numbered and not math.isnan(cost):
                axes.annotate(str(place), (cost, middle), (4, -9), textcoords="offset points", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(panel.tick)
        axes.set_xlabel(panel.words)
        if len(set(panel.costs)) == 1:  # ticks would be made for a range that is not there
            axes.set_xticks(panel.costs[:1])
    figure.supylabel(label(table.content.metric + _unit(table.scale.unit), 44), fontsize=9)
    return figure


def _mark_style(place: int, theme: Theme) -> tuple[str, str]:
    return (theme.ink, "o") if place == 0 else (theme.colours[place - 1], MARKS[place - 1])
