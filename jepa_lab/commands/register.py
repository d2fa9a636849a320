"""`jepa-lab register`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import runs_option


@click.command(
    epilog="""\b
Examples:
  jepa-lab register digits-0123abcd-s0 --name digits_encoder
  jepa-lab register sweeps/masker-0123abcd/trials/digits-0123abcd-s0 --name digits_encoder"""
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name in the registry; one that is there gets a new version.")
@runs_option
def register(run: Path, name: str, runs: Path) -> None:
    """Register the encoder of a finished run in MLflow's model registry, as a model that turns images into features.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.mlflow_registry import register_run
    from jepa_lab.tracking.run_folder import RunFolder

    click.echo(register_run(RunFolder.open(find_folder(run, [runs])), name).sentences())
