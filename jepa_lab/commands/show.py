"""`jepa-lab show`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.completion import complete_folder
from jepa_lab.commands.options import runs_option
from jepa_lab.commands.printing import PrintingCommand
from jepa_lab.commands.result import CommandResult, examples, prints_result


@click.command(
    cls=PrintingCommand,
    epilog=examples("jepa-lab show digits-6d1a40b1-s0", "jepa-lab show runs/digits-6d1a40b1-s0 --json"),
)
@click.argument("run", type=click.Path(path_type=Path), shell_complete=complete_folder)
@runs_option
@prints_result(quiet="Print the run's state alone: finished, running, stopped or failed.")
def show(run: Path, runs: Path) -> CommandResult:
    """Print the result of a run again, or how far it has come.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    from jepa_lab.run_list import print_run, run_as_json, run_line
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    folder = RunFolder.open(find_folder(run, [runs]))
    return CommandResult(lambda: run_as_json(folder), run_line(folder).state, lambda: print_run(folder))
