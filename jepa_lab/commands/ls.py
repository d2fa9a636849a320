"""`jepa-lab ls`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import runs_option
from jepa_lab.commands.printing import PrintingCommand
from jepa_lab.commands.result import CommandResult, examples, prints_result


@click.command(
    cls=PrintingCommand,
    name="ls",
    epilog=examples("jepa-lab ls", "jepa-lab ls --runs sweeps/masker-0f3c2a91/trials", "jepa-lab ls --quiet"),
)
@runs_option
@prints_result(quiet="Print the names alone, one per line.")
def list_run_folders(runs: Path) -> CommandResult:
    """List the runs below --runs: state, step, accuracies with their controls."""
    from dataclasses import asdict

    from jepa_lab.run_list import list_runs, print_runs

    lines = list_runs(runs)
    names = "\n".join(line.name for line in lines) or None
    return CommandResult(lambda: [asdict(line) for line in lines], names, lambda: print_runs(lines, runs))
