"""`jepa-lab sync`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.completion import complete_folder
from jepa_lab.commands.options import runs_option, sweeps_option
from jepa_lab.commands.result import CommandResult, examples, prints_result
from jepa_lab.errors import JepaLabError


@click.command(epilog=examples("jepa-lab sync", "jepa-lab sync digits-6d1a40b1-s0 sweeps/masker-0f3c2a91"))
@click.argument(
    "names", nargs=-1, metavar="[RUN | SWEEP]...", type=click.Path(path_type=Path), shell_complete=complete_folder
)
@runs_option
@sweeps_option
@click.pass_context
@prints_result(quiet="Print nothing but errors: the exit code says whether everything was sent.")
def sync(context: click.Context, names: tuple[Path, ...], runs: Path, sweeps: Path) -> CommandResult:
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
    codes, records = {0}, []
    for path in chosen:
        try:
            state = complete(path)
        except JepaLabError as error:  # the others are completed all the same
            click.echo(f"error: {error}", err=True)
            codes.add(error.exit_code)
        else:
            records.append({"folder": str(path), "complete": state.complete, "in_words": state.sentence(path)})
            click.echo(state.sentence(path))
            codes.add(0 if state.complete else 3)
    where = " and ".join(map(str, roots))

    def show() -> None:  # what became of each record has been said as it was completed
        if not chosen:
            click.echo(f"nothing to do: no run below {where} waits for its tracker")

    return CommandResult(lambda: records, None, show, exit_code=2 if 2 in codes else max(codes))


def _roots_to_sync(context: click.Context, runs: Path, sweeps: Path) -> list[Path]:
    """The folders that were named, else those of the two that are there; the first where neither is."""
    named = click.core.ParameterSource.COMMANDLINE
    given = [root for name, root in (("runs", runs), ("sweeps", sweeps)) if context.get_parameter_source(name) == named]
    return given or [root for root in (runs, sweeps) if root.is_dir()] or [runs]
