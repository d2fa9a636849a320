"""Time to draw the masks of a batch, for every masker, beside a collator that draws them image by image in Python.

    python -m benchmarks.masks [--device cpu] [--grid 8] [--batch 256] [--blocks N] [--out FILE]

A masker here draws the whole batch on the device in a few vectorised operations and never asks the host.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import click
import torch

from benchmarks.baseline import BaselineSettings, MaskCollator
from benchmarks.step import count_launches
from benchmarks.timing import markdown_table, report, seconds_per_call
from jepa_lab.errors import JepaLabError
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS
from jepa_lab.maskers.batching import batch_context
from jepa_lab.maskers.multi_block import MultiBlock
from jepa_lab.models.sizes import ModelSize
from jepa_lab.training.devices import Compute, resolve_compute
from jepa_lab.training.settings import TrainingSettings


def vectorised(grid: Grid, batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Every masker that its defaults allow on this grid, with `pad`."""
    generator, found = torch.Generator(device).manual_seed(0), {}
    for entry in MASKERS:
        masker = entry.component(entry.component.Params(), grid)

        def draw(masker=masker) -> object:  # type: ignore[no-untyped-def]
            return batch_context(masker.sample(batch, generator), "pad", generator)

        found[entry.name] = draw
    return found


def by_hand(grid: Grid, batch: int) -> Callable[[], object]:
    """The baseline's collator, without images."""
    size = ModelSize(1, 1, 1)
    collator = MaskCollator(
        BaselineSettings(grid.height, 1, size, size, MultiBlock.Params(), None, batch, fused=True, workers=0)
    )
    images = [torch.zeros(1)] * batch
    return lambda: collator(images)


@click.command()
@click.option("--device", default="auto", show_default=True, help="As training.device: auto, cpu, cuda or mps.")
@click.option("--grid", default=8, show_default=True, type=click.IntRange(min=4), help="Patches along a side.")
@click.option("--batch", default=256, show_default=True, type=click.IntRange(min=1))
@click.option("--blocks", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this file.")
def main(device: str, grid: int, batch: int, blocks: int, out: Path | None) -> None:
    """Measure how long each masker takes for a batch."""
    try:
        compute: Compute = resolve_compute(TrainingSettings(device=device))
    except JepaLabError as error:
        raise click.ClickException(str(error)) from error
    square = Grid(grid, grid)
    actions = {"multi_block, in Python": by_hand(square, batch), **vectorised(square, batch, compute.device)}
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(blocks):
        for name, action in actions.items():
            times[name] += seconds_per_call(action, compute, 1)
    python = statistics.median(times["multi_block, in Python"])
    kind = "kernels" if compute.device.type == "cuda" else "operators"
    rows = []
    for name, action in actions.items():
        median = statistics.median(times[name])
        launches = "" if "Python" in name else f"{count_launches(action, compute):,}"
        rows.append([name, f"{1e3 * median:.3f}", f"{1e9 * median / batch:,.0f}", f"{python / median:.1f}", launches])
    body = markdown_table(["masks", "ms per batch", "ns per image", "x Python", kind], rows)
    command = f"python -m benchmarks.masks {shlex.join(sys.argv[1:])}"
    click.echo(report(f"Drawing masks: {square} patches, batch {batch}", body, compute, command, out))


if __name__ == "__main__":
    main()
