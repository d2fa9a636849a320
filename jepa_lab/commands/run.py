"""`jepa-lab run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jepa_lab.commands.completion import complete_folder, complete_override, complete_pipeline
from jepa_lab.commands.options import OVERRIDES, preset_option, runs_option
from jepa_lab.commands.result import CommandResult, examples, prints_result
from jepa_lab.errors import ConfigError

if TYPE_CHECKING:
    from jepa_lab.composition.outcome import RunOutcome


@click.command(
    epilog=examples(
        "jepa-lab run digits",
        "jepa-lab run pipelines/cifar10.yaml masker=random training.epochs=60",
        "jepa-lab run cifar10 --preset smoke",
        "jepa-lab run digits --resume auto",
        "jepa-lab run --from digits-6d1a40b1-s0 training.epochs=300",
        "jepa-lab run digits --json | jq .result.metrics",
        before=OVERRIDES,
    )
)
@click.argument("first", metavar="[FILE]", required=False, shell_complete=complete_pipeline)
@click.argument("overrides", nargs=-1, shell_complete=complete_override)
@preset_option
@runs_option
@click.option(
    "--resume",
    metavar="RUN|auto",
    type=click.Path(path_type=Path),
    shell_complete=complete_folder,
    help="Resume this run, by its name under --runs or its path. `auto` resumes the newest unfinished run of FILE, or "
    "starts a new one.",
)
@click.option(
    "--from",
    "parent",
    metavar="RUN",
    type=click.Path(path_type=Path),
    shell_complete=complete_folder,
    help="Start a new run with the state of this one, for more epochs: training.epochs counts those of both.",
)
@click.option("--restart-schedules", is_flag=True, help="With --from: count epochs and steps from 0 again.")
@prints_result(quiet="Print the path of the run folder alone.")
def run(
    first: str | None,
    overrides: tuple[str, ...],
    preset: str | None,
    runs: Path,
    resume: Path | None,
    parent: Path | None,
    restart_schedules: bool,
) -> CommandResult | None:
    """Train and probe the pipeline FILE, or resume a run; start it with torchrun to use several processes.

    FILE is a path, or the name of a pipeline that comes with jepa-lab, such as `digits`.
    """
    from jepa_lab.api.running import RunRequest, perform_run
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
            if file is None and parent is None and (resume is None or str(resume) == "auto"):
                raise ConfigError("`jepa-lab run` needs a pipeline FILE, as in `jepa-lab run digits`")
        request = RunRequest(file, overrides, preset, runs, resume, parent, restart_schedules)
        outcome = perform_run(request, team)
    return _result(outcome) if team.leads else None


def _result(outcome: RunOutcome) -> CommandResult:
    from jepa_lab.run_list import run_as_json
    from jepa_lab.summary import print_summary

    folder, mirror = outcome.folder, outcome.mirror

    def show() -> None:
        print_summary(outcome.result, folder.path, outcome.tracker)
        if not mirror.complete:
            click.echo(mirror.sentence(folder.path))

    def document() -> dict[str, Any]:
        return {**run_as_json(folder), "tracking": outcome.tracker, "tracker_is_complete": mirror.complete}

    return CommandResult(document, str(folder.path), show, error=outcome.figures_error)
