"""`jepa-lab report`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import sweeps_option


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("--storage", help="Optuna storage URL, if the sweep was given one.")
@sweeps_option
def report(sweep: Path, storage: str | None, sweeps: Path) -> None:
    """Write the tables, figures and HTML page of a sweep again.

    SWEEP is the name of a sweep under --sweeps, or the path of its folder.
    """
    from jepa_lab.reports.report import print_table, write_report
    from jepa_lab.sweeps.folder import SweepFolder
    from jepa_lab.sweeps.results import report_input
    from jepa_lab.sweeps.studies import open_studies
    from jepa_lab.tracking.folder_names import find_folder

    folder = SweepFolder.open(find_folder(sweep, [sweeps], "sweep"))
    content = report_input(folder, open_studies(folder, storage))
    print_table(content)
    for path in write_report(content, folder.report):
        click.echo(f"wrote {path}")
