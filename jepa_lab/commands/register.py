"""`jepa-lab register`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jepa_lab.commands.completion import complete_folder
from jepa_lab.commands.options import runs_option
from jepa_lab.commands.result import CommandResult, examples, prints_result


@click.command(
    epilog=examples(
        "jepa-lab register digits-6d1a40b1-s0 --name digits_encoder",
        "jepa-lab register sweeps/loss-0f3c2a91/trials/digits-6d1a40b1-s0 --name best",
    )
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=complete_folder)
@click.option("--name", required=True, help="Name in the registry; one that is there gets a new version.")
@runs_option
@prints_result(quiet="Print the URI of the model alone, such as models:/NAME/1.")
def register(run: Path, name: str, runs: Path) -> CommandResult:
    """Register the encoder of a finished run in MLflow's model registry, as a model that turns images into features.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.mlflow_registry import register_run
    from jepa_lab.tracking.run_folder import RunFolder

    model = register_run(RunFolder.open(find_folder(run, [runs])), name)

    def document() -> dict[str, Any]:
        return {
            "folder": str(model.folder.path),
            "model_uri": model.model_uri,
            "name": model.name,
            "version": model.version,
            "tracking_uri": model.uri,
            "is_new": model.is_new,
        }

    return CommandResult(document, model.model_uri, lambda: click.echo(model.sentences()))
