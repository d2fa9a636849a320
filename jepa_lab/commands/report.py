"""`jepa-lab report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jepa_lab.commands.completion import complete_folder
from jepa_lab.commands.options import runs_option, sweeps_option
from jepa_lab.commands.result import CommandResult, examples, prints_result
from jepa_lab.errors import ConfigError

if TYPE_CHECKING:
    from jepa_lab.tracking.run_folder import RunFolder


@click.command(
    epilog=examples(
        "jepa-lab report digits-6d1a40b1-s0",
        "jepa-lab report sweeps/masker-0f3c2a91",
        "jepa-lab report sweeps/masker-0f3c2a91/trials/digits-6d1a40b1-s0",
    )
)
@click.argument("name", metavar="RUN|SWEEP", type=click.Path(path_type=Path), shell_complete=complete_folder)
@click.option("--storage", help="Optuna storage URL, if the sweep was given one.")
@runs_option
@sweeps_option
@prints_result(quiet="Print the path of the page alone.")
def report(name: Path, storage: str | None, runs: Path, sweeps: Path) -> CommandResult:
    """Draw the figures of a run, or the tables and figures of a sweep, and write them as one HTML page.

    RUN is the name of a run under --runs, or the path of its folder, which may be that of a trial; SWEEP is the name of
    a sweep under --sweeps, or the path of its folder. The page needs no network and no other file.
    """
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.mirror_cursor import is_sweep
    from jepa_lab.tracking.run_folder import RunFolder

    path = find_folder(name, [runs, sweeps], "run or sweep")
    if is_sweep(RunFolder(path)):
        return _report_sweep(path, storage)
    if storage is not None:
        raise ConfigError(f"--storage is of a sweep, and {path} is none; leave it out")
    return _report_run(RunFolder.open(path))


def _report_run(folder: RunFolder) -> CommandResult:
    from jepa_lab.reports.run_report import write_run_report

    written = write_run_report(folder)
    figures = written.figures

    def show() -> None:
        for figure, why in figures.left_out.items():
            click.echo(f"left out: {figure}: {why}")
        for path in written.files:
            click.echo(f"wrote {path}")

    def document() -> dict[str, Any]:
        return {"folder": str(folder.path), "files": list(map(str, written.files)), **figures.record()}

    error = figures.error(folder.log, "The page leaves them out")
    return CommandResult(document, str(written.files[-1]), show, error=error)


def _report_sweep(path: Path, storage: str | None) -> CommandResult:
    from jepa_lab.reports.report import print_table, write_report
    from jepa_lab.reports.table_json import table_as_json
    from jepa_lab.sweeps.folder import SweepFolder
    from jepa_lab.sweeps.gathering import gathered_studies
    from jepa_lab.sweeps.results import report_input

    folder = SweepFolder.open(path)
    content = report_input(folder, gathered_studies(folder, storage))
    files = write_report(content, folder.report)

    def show() -> None:
        print_table(content)
        for file in files:
            click.echo(f"wrote {file}")

    def document() -> dict[str, Any]:
        return {"folder": str(folder.path), "files": list(map(str, files)), **table_as_json(content)}

    return CommandResult(document, str(files[-1]), show)
