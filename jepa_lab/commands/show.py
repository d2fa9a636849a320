"""`jepa-lab show`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import runs_option
from jepa_lab.commands.printing import PrintingCommand


@click.command(cls=PrintingCommand)
@click.argument("run", type=click.Path(path_type=Path))
@runs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all of result.json.")
def show(run: Path, runs: Path, as_json: bool) -> None:
    """Print the result of a run again, or how far it has come.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    import json

    from jepa_lab.run_list import print_run, run_as_json
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    folder = RunFolder.open(find_folder(run, [runs]))
    if as_json:
        click.echo(json.dumps(run_as_json(folder), indent=1))
    else:
        print_run(folder)
