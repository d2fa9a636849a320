"""How a sweep's costs beside training grow with its trials: simulated workers, and everything else real.

    python -m benchmarks.sweep_scale [--trials 60,120,250,500,1000,2000] [--stages sweep,again,report]
        [--storage journal,sqlite] [--kind table] [--folder FOLDER] [--out benchmarks/results/sweep_scale]

A table has ten seeds, so that its arms grow with its trials: 200 at 2,000. Each stage runs in a process of its own:
`sweep` is the parent (queue and study) until all trials have finished, `again` the same command with nothing left to
do, `report` the report and what a terminal shows, `mirror` all records to a new MLflow store of SQLite, `search` a
search by TPE whose trials are the points. CPU seconds of the process hardly depend on what else the machine does.

The template is a real run, which is trained first (half a minute): `--template FOLDER` names one instead. Figures and
weights of simulated runs are hard links to its own, so that FOLDER needs 150 KB for each trial. The measurements so far
are kept in FOLDER: the same command again measures only what is missing, and writes the table and the plot.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.scaling import exponent
from benchmarks.timing import markdown_table
from jepa_lab.figures.style import LIGHT, Drawing, empty_figure, legend_below, png
from jepa_lab.resume import is_finished
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.uris import sqlite_uri

BASE = Path(__file__).parents[1] / "pipelines" / "digits.yaml"
SEEDS = 10
GOAL_EXPONENT = 1.1
_SMALLEST_FITTED = 250
"""Below it the costs that every sweep has, such as the figures' own, hide how the rest grows."""


@dataclass(frozen=True)
class Series:
    """A cost against the number of trials.

    Attributes:
        seconds: CPU seconds by number of trials. peaks: MiB by number of trials.
    """

    name: str
    seconds: dict[int, float]
    peaks: dict[int, float]

    @property
    def exponent(self) -> float:
        """Slope of log seconds against log trials over the larger sweeps; NaN for fewer than two."""
        fitted = {n: found for n, found in self.seconds.items() if n >= _SMALLEST_FITTED and found > 0}
        return exponent(list(fitted), list(fitted.values())) if len(fitted) > 1 else math.nan

    def row(self) -> list[str]:
        """A line of the table."""
        most = max(self.seconds)
        times = ", ".join(f"{n}: {_short(found)}" for n, found in sorted(self.seconds.items()))
        each = f"{1e3 * self.seconds[most] / most:.1f}"
        return [self.name, times, each, _number(self.exponent), f"{self.peaks[most]:.0f}"]


def ablation(kind: str, trials: int, tracking: str) -> str:
    """An ablation file of so many trials.

    Args:
        kind: "table" or "search".
    """
    head = f"base: {BASE}\noverrides: {{training.epochs: 20, tracking: {tracking}}}\n"
    if kind == "search":
        return (
            f"{head}search:\n"
            "  optimizer.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}\n"
            "  optimizer.weight_decay: {type: float, low: 1.0e-3, high: 0.3, log: true}\n"
            "  optimizer.warmup_fraction: {type: categorical, choices: [0.05, 0.1, 0.2]}\n"
            f"sampler: tpe\nbudget: {{trials: {trials}}}\nseeds: [0]\n"
        )
    arms = [
        f"  lr={1e-3 * 1.01**number:.4g} wd={0.01 * (1 + number % 7):.2g}: {{optimizer.learning_rate: "
        f"{1e-3 * 1.01**number:.6g}, optimizer.weight_decay: {0.01 * (1 + number % 7):.3g}}}\n"
        for number in range(1, trials // SEEDS)
    ]
    return f"{head}baseline: base\narms:\n  base: {{}}\n{''.join(arms)}seeds: {list(range(SEEDS))}\n"


@dataclass(frozen=True)
class Bench:
    """Where measurements are made and kept."""

    folder: Path
    template: Path

    def measure(self, stage: str, kind: str, storage: str, trials: int) -> dict[str, Any]:
        """What a stage took, measured now or before; the sweep that it works on is made first.

        Raises:
            click.ClickException: the stage failed.
        """
        name = f"{kind}-{storage}{'-mlflow' if stage == 'mirror' else ''}-{trials}"
        out = self.folder / f"{name}.{stage}.json"
        if out.exists():
            return dict(json.loads(out.read_text()))
        root = self.folder / name
        if stage != "sweep" and not root.exists():
            self._run("sweep", kind, storage, trials, root, self.folder / f"{name}.sweep.json")
        self._run(stage, kind, storage, trials, root, out)
        return dict(json.loads(out.read_text()))

    def _run(self, stage: str, kind: str, storage: str, trials: int, root: Path, out: Path) -> None:
        tracking = "none"
        if root.name.split("-")[2] == "mlflow":
            tracking = f"{{name: mlflow, uri: '{sqlite_uri(root.with_suffix('.db'))}'}}"
        file = root.with_suffix(".yaml")
        file.write_text(ablation(kind, trials, tracking))
        command = [sys.executable, "-m", "benchmarks.sweep_scale_stage", stage]
        command += [str(file), str(root), str(self.template), str(out)]
        command += ["--storage", sqlite_uri(root.with_suffix(".optuna.db"))] if storage == "sqlite" else []
        with open(out.with_suffix(".log"), "w") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if code != 0:
            raise click.ClickException(f"{stage} of {trials} trials ended with code {code}: see {log.name}")


def trained_template(folder: Path) -> Path:
    """The folder of a real run, trained here if there is none yet."""
    root = folder / "template"
    if not _finished_runs(root):  # one that was killed does not count
        command = [sys.executable, "-m", "jepa_lab", "run", str(BASE), "--preset", "smoke", "tracking=none"]
        subprocess.run([*command, "--runs", str(root)], check=True, stdout=subprocess.DEVNULL)
    return _finished_runs(root)[0]


def _finished_runs(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*")) if is_finished(RunFolder(path))]


def series_of(measured: dict[tuple[str, str, int], dict[str, Any]]) -> list[Series]:
    """A series for each part of each stage.

    Args:
        measured: by stage, storage and number of trials.
    """
    found: dict[str, Series] = {}
    for (stage, storage, trials), values in measured.items():
        for part, seconds in values["cpu"].items():
            if part == "worker":
                continue
            name = f"{part}{' again' if stage == 'again' else ''}{' (SQLite)' if storage == 'sqlite' else ''}"
            series = found.setdefault(name, Series(name, {}, {}))
            series.seconds[trials], series.peaks[trials] = seconds, values["peak_mib"]
    return list(found.values())


def drawing(series: Sequence[Series]) -> Drawing:
    """CPU seconds against trials on logarithmic axes."""

    def draw(theme: Any) -> Any:
        figure = empty_figure(5.0, theme.width)
        axes = figure.subplots()
        for place, each in enumerate(series):
            trials = sorted(each.seconds)
            colour, mark = theme.colours[place % len(theme.colours)], "os^Dv"[place // len(theme.colours) % 5]
            name = f"{each.name}: {_number(each.exponent)}"
            axes.loglog(trials, [each.seconds[n] for n in trials], color=colour, marker=mark, markersize=4, label=name)
        for axis in (axes.xaxis, axes.yaxis):  # the style writes no mathematics, which Matplotlib's own labels are
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xticks(sorted({n for each in series for n in each.seconds}))
        axes.set_xlabel("trials")
        axes.set_ylabel("CPU seconds")
        handles, names = axes.get_legend_handles_labels()
        figure.set_figheight(5.0 + legend_below(figure, handles, names))
        return figure

    title = "Costs of a sweep beside training, and their exponents"
    return Drawing("sweep_scale", title, title, draw)


def _short(seconds: float) -> str:
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _conditions() -> str:
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; load at the end: {load}"


@click.command()
@click.option("--trials", default="60,120,250,500,1000,2000", show_default=True, help="Sizes of the sweeps.")
@click.option("--stages", default="sweep,again,report", show_default=True, help="Also: plan, mirror.")
@click.option("--storage", default="journal", show_default=True, help="Also: sqlite.")
@click.option("--kind", default="table", show_default=True, type=click.Choice(["table", "search"]))
@click.option("--folder", default=Path("sweep_scale"), show_default=True, type=click.Path(path_type=Path))
@click.option("--template", type=click.Path(path_type=Path, exists=True), help="Run folder of a real run.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to OUT.md and the plot to OUT.png.")
@click.option("--keep", is_flag=True, help="Keep the sweeps, not only the measurements.")
def main(
    trials: str,
    stages: str,
    storage: str,
    kind: str,
    folder: Path,
    template: Path | None,
    out: Path | None,
    keep: bool,
) -> None:
    """Measure how the costs of a sweep grow."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    bench = Bench(folder, trained_template(folder) if template is None else template.resolve())
    measured = {}
    for number in map(int, trials.split(",")):
        for place in storage.split(","):
            for stage in stages.split(","):
                measured[stage, place, number] = bench.measure(stage, kind, place, number)
        if not keep:
            for root in folder.glob(f"*-{number}"):
                shutil.rmtree(root)
    found = series_of(measured)
    header = ["what", "CPU seconds by trials", "ms per trial, most trials", "exponent", "memory, MiB"]
    table = markdown_table(header, [each.row() for each in found])
    text = f"{_conditions()}\n\n{table}\n"
    click.echo(text)
    if out is not None:
        out.with_suffix(".md").write_text(text)
        out.with_suffix(".png").write_bytes(png(drawing(found), LIGHT, titled=True))


if __name__ == "__main__":
    main()
