"""`jepa-lab run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jepa_lab.commands.options import OVERRIDES, found_file, preset_option, runs_option
from jepa_lab.errors import ConfigError

if TYPE_CHECKING:
    from jepa_lab.composition.outcome import RunOutcome
    from jepa_lab.training.team import Team


@click.command(epilog=OVERRIDES)
@click.argument("first", metavar="[FILE]", required=False)
@click.argument("overrides", nargs=-1)
@preset_option
@runs_option
@click.option(
    "--resume",
    metavar="RUN|auto",
    type=click.Path(path_type=Path),
    help="Resume this run, by its name under --runs or its path. `auto` resumes the newest unfinished run of FILE, or "
    "starts a new one.",
)
@click.option(
    "--from",
    "parent",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Start a new run with the state of this one, for more epochs: training.epochs counts those of both.",
)
@click.option("--restart-schedules", is_flag=True, help="With --from: count epochs and steps from 0 again.")
def run(
    first: str | None,
    overrides: tuple[str, ...],
    preset: str | None,
    runs: Path,
    resume: Path | None,
    parent: Path | None,
    restart_schedules: bool,
) -> None:
    """Train and probe the pipeline FILE, or resume a run; start it with torchrun to use several processes.

    FILE is a path, or the name of a pipeline that comes with jepa-lab, such as `digits`.
    """
    from jepa_lab.training.distributed import joined_team

    file = None if first is None else Path(first)
    if (
        first is not None and "=" in first and (resume or parent) is not None
    ):  # overrides alone; a path would merge the // of a URI
        file, overrides = None, (first, *overrides)
    with joined_team() as team:
        with team.reporting():
            if resume is not None and parent is not None:
                raise ConfigError("--from starts a new run, --resume resumes an old one; leave one of them out")
            if restart_schedules and parent is None:
                raise ConfigError("--restart-schedules goes with --from RUN; leave it out")
        if parent is not None:
            outcome = _continue(parent, runs, file, overrides, preset, restart_schedules, team)
        elif resume is not None and str(resume) != "auto":
            outcome = _resume(resume, runs, file, overrides, preset, team)
        elif file is None:
            with team.reporting():
                raise ConfigError("`jepa-lab run` needs a pipeline FILE, as in `jepa-lab run digits`")
        else:
            outcome = _start(file, overrides, preset, runs, resume is not None, team)
        _print_outcome(outcome)


def _resume(
    run: Path, runs: Path, file: Path | None, overrides: tuple[str, ...], preset: str | None, team: Team
) -> RunOutcome:
    """Resume the run of a name or a path."""
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.resume import resume_run
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    with team.reporting():
        folder = RunFolder.open(find_folder(run, [runs]))
        source = folder.config if file is None else found_file(file, "pipeline")
        given = load_pipeline(source, overrides, preset).pipeline if file or overrides or preset else None
    return resume_run(folder, given, sys.argv, team=team)


def _continue(
    run: Path,
    runs: Path,
    file: Path | None,
    overrides: tuple[str, ...],
    preset: str | None,
    restart_schedules: bool,
    team: Team,
) -> RunOutcome:
    """Start a new run with the state of another one; without a file with its configuration."""
    from jepa_lab.composition.start import start_run
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.parent import choose_parent
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    with team.reporting():
        folder = RunFolder.open(find_folder(run, [runs]))
        source = folder.config if file is None else found_file(file, "pipeline")
        loaded = load_pipeline(source, overrides, preset)
        parent = choose_parent(folder, loaded, restart_schedules=restart_schedules)
    return start_run(loaded, runs, sys.argv, team=team, parent=parent)


def _start(
    file: Path, overrides: tuple[str, ...], preset: str | None, runs: Path, look_for_unfinished: bool, team: Team
) -> RunOutcome:
    """Start a run, or resume an unfinished one of the same pipeline."""
    from jepa_lab.composition.start import start_run
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.resume import find_unfinished, resume_run

    with team.reporting():
        loaded = load_pipeline(found_file(file, "pipeline"), overrides, preset)
    if look_for_unfinished:
        folder = team.from_leader(lambda: find_unfinished(runs, loaded.pipeline))
        if folder is not None:
            click.echo(f"resuming {folder.path}")
            return resume_run(folder, loaded.pipeline, sys.argv, team=team)
        click.echo(f"no unfinished run of this pipeline and seed in {runs}; starting a new one")
    return start_run(loaded, runs, sys.argv, team=team)


def _print_outcome(outcome: RunOutcome) -> None:
    from jepa_lab.summary import print_summary

    print_summary(outcome.result, outcome.folder.path, outcome.tracker)
    if not outcome.mirror.complete:
        click.echo(outcome.mirror.sentence(outcome.folder.path))
