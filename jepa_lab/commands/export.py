"""`jepa-lab export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from jepa_lab.commands.completion import complete_folder
from jepa_lab.commands.options import encoder_option, runs_option
from jepa_lab.commands.result import CommandResult, examples, prints_result


@click.command(
    epilog=examples(
        "jepa-lab export digits-6d1a40b1-s0 --to timm --out my_encoder",
        "jepa-lab export digits-6d1a40b1-s0 --to onnx --encoder context --out onnx",
    )
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=complete_folder)
@click.option(
    "--to",
    "form",
    required=True,
    metavar="FORMAT",
    help="timm, transformers, safetensors or onnx; see `jepa-lab list export_format`.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write; it must not exist.")
@encoder_option
@click.option("--step", type=int, help="Checkpoint to export (default: the last one).")
@runs_option
@prints_result(quiet="Print the path of the folder alone.")
def export(
    run: Path, form: str, out: Path, encoder: Literal["target", "context"], step: int | None, runs: Path
) -> CommandResult:
    """Write a run's encoder for another library, checked on the run's images, with a model card.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    from jepa_lab.interop.export import ExportRequest, export_run
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    outcome = export_run(RunFolder.open(find_folder(run, [runs])), ExportRequest(form, encoder, step), out)

    def document() -> dict[str, Any]:
        return {
            "folder": str(outcome.folder),
            "format": form,
            "encoder": encoder,
            "largest_difference": outcome.difference,
            "num_images": outcome.num_images,
        }

    return CommandResult(document, str(outcome.folder), lambda: click.echo(outcome.sentence()))
