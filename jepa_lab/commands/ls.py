"""`jepa-lab ls`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import runs_option
from jepa_lab.commands.printing import PrintingCommand


@click.command(cls=PrintingCommand, name="ls")
@runs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_run_folders(runs: Path, as_json: bool) -> None:
    """List the runs below --runs: state, step, accuracies with their controls."""
    import json
    from dataclasses import asdict

    from jepa_lab.run_list import list_runs, print_runs

    lines = list_runs(runs)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        print_runs(lines, runs)
