"""`jepa-lab sync`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from jepa_lab.commands.options import runs_option, sweeps_option
from jepa_lab.errors import JepaLabError


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN | SWEEP]...", type=click.Path(path_type=Path))
@runs_option
@sweeps_option
@click.pass_context
def sync(context: click.Context, names: tuple[Path, ...], runs: Path, sweeps: Path) -> None:
    """Complete the MLflow record of runs and sweeps whose tracker was unreachable.

    RUN and SWEEP are names under --runs and --sweeps, or paths of folders; a sweep stands for all its trials. Without
    any, all records are completed that need it.
    """
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.mirror import folders_to_sync
    from jepa_lab.tracking.mirror import sync as complete
    from jepa_lab.tracking.run_folder import RunFolder

    named = tuple(find_folder(name, [runs, sweeps], "run or sweep") for name in names)
    for path in named:
        RunFolder.open(path)  # a wrong path is told before anything is sent
    roots = _roots_to_sync(context, runs, sweeps)
    chosen = named or tuple(path for root in roots for path in folders_to_sync(root))
    codes = {0}
    for path in chosen:
        try:
            state = complete(path)
        except JepaLabError as error:  # the others are completed all the same
            click.echo(f"error: {error}", err=True)
            codes.add(error.exit_code)
        else:
            click.echo(state.sentence(path))
            codes.add(0 if state.complete else 3)
    if not chosen:
        where = " and ".join(map(str, roots))
        click.echo(f"nothing to do: no run below {where} waits for its tracker")
    sys.exit(2 if 2 in codes else max(codes))


def _roots_to_sync(context: click.Context, runs: Path, sweeps: Path) -> list[Path]:
    """The folders that were named, else those of the two that are there; the first where neither is."""
    named = click.core.ParameterSource.COMMANDLINE
    given = [root for name, root in (("runs", runs), ("sweeps", sweeps)) if context.get_parameter_source(name) == named]
    return given or [root for root in (runs, sweeps) if root.is_dir()] or [runs]
