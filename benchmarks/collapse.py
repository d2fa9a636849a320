"""Curves of the monitors, of healthy runs and of runs made to collapse: what the rules of collapse are calibrated on.

    python -m benchmarks.collapse [NAME ...] [--cifar10 FOLDER] [--out tests/golden/collapse_curves.json]

Trains each named run (by default all that the file lacks), on one thread, without the final probe of many C, and keeps
its monitors at every probe epoch. Then prints what the rules in force say about every run in the file; the tests ask
the same of the recorded curves. benchmarks/results/collapse.md has the table and its conditions.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.monitors.collapse import CollapseDetector, CollapseSettings, Observation
from jepa_lab.tables.cells import Cell, Column, TextTable, text_columns
from jepa_lab.tables.terminal import print_text_table
from jepa_lab.tracking.atomic import write_text_atomically
from jepa_lab.tracking.metrics import read_metrics

PIPELINES = Path(__file__).parents[1] / "pipelines"
CURVES = Path(__file__).parents[1] / "tests" / "golden" / "collapse_curves.json"
MONITORED = ("validation/loss", "monitor/image_variance_ratio", "monitor/rankme", "monitor/rankme_centred")
ACCURACY = "probe/online_validation_accuracy"

NO_AVERAGE = "ema_momentum={name: constant, value: 0.0}"
UNSCALED = (NO_AVERAGE, "target.normalization=none", "optimizer.learning_rate=5e-3")
"""Equal features for all images are the easiest to predict, and nothing fixes their scale."""
LONG = ("training.epochs=40", "probe.every_epochs=4")
GARMENTS = (
    "data.max_images=1500", "data.validation_fraction=0.2", "training.epochs=8", "probe.every_epochs=1",
    "probe.online_max_images=1000",
)  # fmt: skip
SMALL_VIT = (
    "encoder.size={name: custom, embed_dim: 96, depth: 4, num_heads: 4}", "data.validation_fraction=0.3",
    "training.epochs=6", "probe.every_epochs=1",
)  # fmt: skip
SMALL_PATCHES = (
    "encoder.position=sincos", "predictor.position=sincos", "data.image_size=16", "encoder.patch_size=2",
    "training.epochs=6", "probe.every_epochs=1", "data.max_images=500", "training.batch_size=50",
)  # fmt: skip
"""Patches of four pixels: the fixed positions outweigh the content, and features lose the image most easily."""


@dataclass(frozen=True)
class Regime:
    """A run.

    Attributes:
        kind: "healthy", or how it collapses; "nothing learned" where it keeps its rank and beats no random encoder.
        pipeline: file in `pipelines`. overrides: as on the command line.
    """

    kind: str
    pipeline: str
    overrides: tuple[str, ...]


def _regimes() -> dict[str, Regime]:
    found = {
        "digits, 150 epochs": Regime("healthy", "digits", ("probe.every_epochs=10",)),
        "digits, 40 epochs": Regime("healthy", "digits", LONG),
    }
    found["digits, seed 1"] = Regime("healthy", "digits", ("training.epochs=8", "probe.every_epochs=1", "seed=1"))
    for seed in (1, 2, 3, 4):
        found[f"digits, 40 epochs, seed {seed}"] = Regime("healthy", "digits", (*LONG, f"seed={seed}"))
    found["fashion_mnist_small"] = Regime("healthy", "fashion_mnist_small", GARMENTS)
    for seed in (1, 2):
        found[f"fashion_mnist_small, seed {seed}"] = Regime(
            "healthy", "fashion_mnist_small", (*GARMENTS, f"seed={seed}")
        )
    for seed in range(5):
        found[f"shapes, seed {seed}"] = Regime("healthy", "shapes", ("probe.every_epochs=2", f"seed={seed}"))
    found["cifar10"] = Regime(
        "healthy", "cifar10",
        (*SMALL_VIT, "predictor.size={name: custom, embed_dim: 48, depth: 2, num_heads: 4}", "data.max_images=600",
         "training.batch_size=40"),
    )  # fmt: skip
    found["hjepa_cifar10"] = Regime(
        "healthy", "hjepa_cifar10",
        (*SMALL_VIT, "predictor.size={name: custom, embed_dim: 48, depth: 2, num_heads: 4, mlp_ratio: 4.0}",
         "data.max_images=300", "optimizer.warmup_epochs=1", "training.batch_size=30",
         "training.activation_checkpointing=false"),
    )  # fmt: skip
    found["small patches"] = Regime("healthy", "digits", SMALL_PATCHES)
    slow = (NO_AVERAGE, "training.epochs=30", "probe.every_epochs=3")
    found["no average"] = Regime("nothing learned", "digits", slow)
    for seed, kind in enumerate(("nothing learned", "rank lost")):
        fast = (NO_AVERAGE, "optimizer.learning_rate=3e-3", *LONG, f"seed={seed}")
        found[f"no average, fast, seed {seed}"] = Regime(kind, "digits", fast)
    found["no average, unscaled"] = Regime(
        "rank lost", "digits", (*UNSCALED, "training.epochs=30", "probe.every_epochs=3")
    )
    quick = ("training.epochs=24", "probe.every_epochs=3")
    squared = (NO_AVERAGE, "target.normalization=none", "loss=l2", *quick)
    found["no average, fastest"] = Regime(
        "few dimensions", "digits", (NO_AVERAGE, "optimizer.learning_rate=2e-2", *quick)
    )
    found["no average, unscaled, squared, fast"] = Regime(
        "few dimensions", "digits", (*squared, "optimizer.learning_rate=1e-2", "optimizer.weight_decay=0.4")
    )
    found["no average, unscaled, squared, fastest"] = Regime(
        "constant features", "digits", (*squared, "optimizer.learning_rate=3e-2")
    )
    found["small patches, no average, unscaled"] = Regime("position alone", "digits", (*SMALL_PATCHES, *UNSCALED))
    return found


REGIMES = _regimes()


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--cifar10", type=click.Path(exists=True, file_okay=False), help="Folder of CIFAR-10 images.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=CURVES)
def main(names: tuple[str, ...], cifar10: str | None, out: Path) -> None:
    """Train what is missing, and judge everything."""
    curves: dict[str, Any] = json.loads(out.read_text())["runs"] if out.exists() else {}
    for name in names or [each for each in REGIMES if each not in curves]:
        curves[name] = record(REGIMES[name], cifar10)
        ordered = {each: curves[each] for each in REGIMES if each in curves}
        content = {
            "made_by": "python -m benchmarks.collapse",
            "columns": ["epoch", *MONITORED, ACCURACY],
            "runs": ordered,
        }
        write_text_atomically(out, json.dumps(content, indent=1) + "\n")
    print_text_table(verdicts(curves), (), Console(highlight=False))


def record(regime: Regime, cifar10: str | None) -> dict[str, Any]:
    """Train a run and read its curves."""
    given = (*regime.overrides, "probe.method={name: logistic, c_grid: [1.0]}", "training.num_threads=1")
    root = (f"data.root={cifar10}",) if "cifar10" in regime.pipeline and cifar10 is not None else ()
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_pipeline(PIPELINES / f"{regime.pipeline}.yaml", (*given, *root, "tracking=none"))
        outcome = start_run(loaded, Path(folder), [])
        rows = [row for row in read_metrics(outcome.folder.metrics) if MONITORED[1] in row.metrics]
        images = min(512, outcome.result["images"]["validation"])
    return {
        "kind": regime.kind,
        "pipeline": regime.pipeline,
        "overrides": list(regime.overrides),
        "num_images": images,
        "width": outcome.result["encoder"]["num_features"],
        "curve": [
            [round(row.epoch, 3), *(float(f"{row.metrics[key]:.4g}") for key in (*MONITORED, ACCURACY))] for row in rows
        ],
    }


def observations(run: dict[str, Any]) -> list[Observation]:
    """The monitors of a recorded run."""
    return [Observation(*row[2:5], run["num_images"], run["width"]) for row in run["curve"]]


def verdicts(curves: dict[str, Any]) -> TextTable:
    """What the rules say about each run, with the lowest values that they looked at."""
    lines = []
    for name, run in curves.items():
        detector, seen = CollapseDetector(CollapseSettings()), observations(run)
        found = [detector.observe(each).status for each in seen]
        ratios, ranks = ([getattr(each, key) for each in seen] for key in ("image_variance_ratio", "rankme_centred"))
        texts = (
            name,
            run["kind"],
            f"{ratios[0]:.2g}, {min(ratios):.2g}",
            f"{ranks[0]:.1f}, {min(ranks):.1f}, {ranks[-1]:.1f}",
            f"{min(_kept(seen)):.2f}",
            f"{run['curve'][0][-1]:.1%}, {run['curve'][-1][-1]:.1%}",
            f"{found.count('warned')} + {found.count('collapsed')} of {len(found)}",
            found[-1],
        )
        lines.append(tuple(map(Cell, texts)))
    names = (
        "run", "kind", "image variance ratio: first, lowest", "centred RankMe: first, lowest, last",
        "lowest share of rank kept", "online probe: first, last", "epochs warned + collapsed", "at the end",
    )  # fmt: skip
    return TextTable("What the rules say", (*text_columns(names[0], names[1]), *map(Column, names[2:])), tuple(lines))


def _kept(seen: list[Observation]) -> list[float]:
    """The centred RankMe - 1 as a share of its highest value so far."""
    highest, shares = 0.0, []
    for each in seen:
        highest = max(highest, each.rankme_centred - 1)
        shares.append((each.rankme_centred - 1) / highest if highest > 0 else 1.0)
    return shares


if __name__ == "__main__":
    main()
