"""`jepa-lab dashboard`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.completion import complete_folder
from jepa_lab.commands.options import host_option, no_open_option, port_option, sweeps_option
from jepa_lab.commands.result import examples


@click.command(
    epilog=examples(
        "jepa-lab dashboard masker-0123abcd", "jepa-lab dashboard sweeps/masker-0123abcd --port 8081 --no-open"
    )
)
@click.argument("sweep", type=click.Path(path_type=Path), shell_complete=complete_folder)
@click.option("--storage", help="Optuna storage URL, if the sweep was given one.")
@port_option(8080)
@host_option
@no_open_option
@sweeps_option
def dashboard(sweep: Path, storage: str | None, port: int, host: str, no_open: bool, sweeps: Path) -> None:
    """Open Optuna's web pages on the trials of a sweep; they need the package optuna-dashboard.

    SWEEP is the name of a sweep under --sweeps, or the path of its folder. A sweep that is running can be watched.
    """
    from jepa_lab.pages import Place, open_browser
    from jepa_lab.sweeps.dashboard import serve_dashboard
    from jepa_lab.sweeps.folder import SweepFolder
    from jepa_lab.tracking.folder_names import find_folder

    folder = SweepFolder.open(find_folder(sweep, [sweeps], "sweep"))
    show = (lambda link: False) if no_open else open_browser
    serve_dashboard(folder, storage, Place(port, host), click.echo, show)
