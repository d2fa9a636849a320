"""Does a monitor that needs no labels order the trials as the probe does?"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from jepa_lab.figures.style import Drawing, Theme, empty_figure, label
from jepa_lab.measures import is_share
from jepa_lab.monitors.base import is_reading, known_metrics
from jepa_lab.reports import numbers
from jepa_lab.reports.content import HAS_RESULT, ReportInput
from jepa_lab.reports.monitor_names import LOSS, monitor_title
from jepa_lab.reports.statistics import rank_correlations


def with_last_monitors(content: ReportInput) -> pd.DataFrame:
    """The trials with a result, and the last value of each monitor's curve as a column."""
    trials = content.trials[content.trials["status"].isin(HAS_RESULT)]
    curves = content.curves[content.curves["name"].isin(_monitors_of(content))]
    if curves.empty:
        return trials
    last = curves.sort_values("step", kind="stable").groupby(["arm", "seed", "name"])["value"].last().unstack("name")
    return trials.drop(columns=[name for name in last if name in trials]).merge(
        last.reset_index(), on=["arm", "seed"], how="left"
    )


def _monitors_of(content: ReportInput) -> list[str]:
    """The readings of monitors, those of plug-ins last, and the validation loss; all but the metric, if it is one."""
    known = list(known_metrics())
    found = {name for name in map(str, (*content.curves["name"].unique(), *content.trials)) if is_reading(name)}
    names = [*(name for name in known if name in found), *sorted(found - set(known)), LOSS]
    return [name for name in names if name != content.metric]


def monitor_correlations(content: ReportInput) -> pd.DataFrame:
    """Spearman's rho of each monitor with the metric over all trials: columns monitor, n, rho, p."""
    found = rank_correlations(with_last_monitors(content), _monitors_of(content), content.metric)
    return found[found["rho"].notna()]


def monitors_drawing(content: ReportInput) -> Drawing | None:
    """The metric against each monitor, one point a trial; None where nothing can be correlated."""
    found = monitor_correlations(content)
    if found.empty:
        return None
    trials = with_last_monitors(content)
    rows = found.to_dict("records")

    def draw(theme: Theme) -> Any:
        from matplotlib.ticker import MaxNLocator

        height = math.ceil(len(rows) / theme.columns)
        figure = empty_figure(2.7 * height + 0.4, theme.width)
        grid = figure.subplots(height, theme.columns, sharey=True, squeeze=False).flatten()
        factor = 100.0 if is_share(content.metric) else 1.0
        is_baseline = trials["arm"] == content.baseline
        for axes, row in zip(grid, rows, strict=False):
            for chosen, colour, mark, name in (
                (~is_baseline, theme.colours[0], "o", "other trials"),
                (is_baseline, theme.ink, "D", "baseline"),
            ):
                points = trials[chosen]
                size = {"markersize": 4.5, "alpha": 0.75, "linestyle": "", "label": name}
                axes.plot(points[row["monitor"]], factor * points[content.metric], mark, color=colour, **size)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            title = (
                f"{monitor_title(row['monitor'], content)}: ρ = {numbers.correlation(row['rho'])} ({row['n']} trials)"
            )
            axes.set_title(label(title, 42))
        for axes in grid[len(rows) :]:
            axes.set_visible(False)
        figure.supylabel(label(content.metric + (", %" if factor == 100 else ""), 44), fontsize=9)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    parts = [
        f"{monitor_title(row['monitor'], content)} {numbers.correlation(row['rho'])} over {row['n']} trials"
        for row in rows
    ]
    alt = f"Spearman's rank correlation of label-free monitors with {content.metric}: {', '.join(parts)}."
    return Drawing("monitors", "Do label-free monitors agree with the probe?", alt, draw)
