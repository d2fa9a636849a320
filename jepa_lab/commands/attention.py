"""`jepa-lab attention`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from jepa_lab.commands.completion import complete_folder
from jepa_lab.commands.options import encoder_option, runs_option
from jepa_lab.commands.result import CommandResult, examples, prints_result, wrote


@click.command(
    epilog=examples(
        "jepa-lab attention digits-6d1a40b1-s0 --out attention.png",
        "jepa-lab attention digits-6d1a40b1-s0 --out corner.png --layer 2 --query 0 0",
    )
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=complete_folder)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG to write.")
@click.option("--step", type=int, help="Checkpoint to draw (default: the last one).")
@encoder_option
@click.option("--layer", type=int, help="Block to draw, counted from 1 (default: the last one).")
@click.option("--images", default=4, show_default=True, type=click.IntRange(1, 32), help="Number of validation images.")
@click.option(
    "--query", type=int, nargs=2, help="Draw what one patch attends to, given by its row and column, counted from 0."
)
@runs_option
@prints_result(quiet="Print the path of the PNG alone.")
def attention(
    run: Path,
    out: Path,
    step: int | None,
    encoder: Literal["target", "context"],
    layer: int | None,
    images: int,
    query: tuple[int, int] | None,
    runs: Path,
) -> CommandResult:
    """Draw which patches a run's encoder attends to, for each head, on validation images.

    RUN is the name of a run under --runs, or the path of its folder.
    There is no class token: by default a map shows how much attention each patch receives from all patches.
    """
    from jepa_lab.attention_picture import AttentionQuestion, draw_run_attention
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    folder = RunFolder.open(find_folder(run, [runs]))
    draw_run_attention(folder, AttentionQuestion(step, encoder, layer, images, query), out)
    return wrote(out)
