"""`jepa-lab export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from jepa_lab.commands.options import runs_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "form",
    required=True,
    metavar="FORMAT",
    help="timm, transformers, safetensors or onnx; see `jepa-lab list export_format`.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write; it must not exist.")
@click.option("--encoder", type=click.Choice(["target", "context"]), default="target", show_default=True)
@click.option("--step", type=int, help="Checkpoint to export (default: the last one).")
@runs_option
def export(
    run: Path, form: str, out: Path, encoder: Literal["target", "context"], step: int | None, runs: Path
) -> None:
    """Write a run's encoder for another library, checked on the run's images, with a model card.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    from jepa_lab.interop.export import ExportRequest, export_run
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    outcome = export_run(RunFolder.open(find_folder(run, [runs])), ExportRequest(form, encoder, step), out)
    click.echo(outcome.sentence())
