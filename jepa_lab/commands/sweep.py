"""`jepa-lab sweep`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jepa_lab.commands.completion import complete_override, complete_pipeline, complete_sweep
from jepa_lab.commands.options import sweeps_option
from jepa_lab.commands.printing import refuse_lost_output, say
from jepa_lab.commands.result import CommandResult, examples, prints_result

if TYPE_CHECKING:
    from jepa_lab.api.sweeping import PreparedSweep
    from jepa_lab.sweeps.planned import Planned
    from jepa_lab.sweeps.shares import ShareOutcome
    from jepa_lab.sweeps.sweep import SweepOutcome

_OVERRIDES = (
    "Overrides follow FILE as KEY=VALUE and hold for every arm: data.root=FOLDER training.epochs=10. After a pipeline, "
    "KEY=VALUE,VALUE is a key to compare: every combination is an arm, and the first value of each key is the baseline."
)


@click.command(
    epilog=examples(
        "jepa-lab sweep predictor_size --preset smoke",
        "jepa-lab sweep masker --dry-run",
        "jepa-lab sweep masker --base cifar10 --seeds 0-2 --arms 'one block'",
        "jepa-lab sweep digits masker=multi_block,random loss=l2,smooth_l1",
        before=_OVERRIDES,
    )
)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_sweep)
@click.argument("overrides", nargs=-1, shell_complete=complete_override)
@click.option("--preset", help="Apply a preset to every arm, with fewer seeds. Available: smoke.")
@click.option(
    "--base",
    metavar="PIPELINE",
    type=click.Path(path_type=Path),
    shell_complete=complete_pipeline,
    help="Pipeline to use in place of the ablation's own base: a file, or a name such as `cifar10`.",
)
@click.option("--seeds", metavar="SEEDS", help="Seeds to use in place of the file's, as in 0-4 or 0,3,5-7.")
@click.option(
    "--arms",
    metavar="ARMS",
    multiple=True,
    help="Train these arms and the baseline alone; names with commas between them, or the option several times.",
)
@click.option("--metric", metavar="NAME", help="Metric to use in place of the file's.")
@sweeps_option
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    help="Number of trials to run in parallel (default: one per GPU, or one per CPU core).",
)
@click.option(
    "--slots-per-gpu",
    type=click.IntRange(min=1),
    help="Trials that share each GPU and its memory, instead of --slots (default: 1).",
)
@click.option(
    "--executor",
    metavar="NAME",
    help="What trains the trials: local (default), slurm or ray; see docs/executors.md.",
)
@click.option(
    "--executor-option",
    "executor_options",
    metavar="KEY=VALUE",
    multiple=True,
    help="Parameter of the executor, such as partition=gpu; may be given several times.",
)
@click.option("--cpus", type=click.IntRange(min=1), help="CPU cores (and threads) per trial.")
@click.option(
    "--gpus", type=click.FloatRange(min=0), help="GPUs per trial; 0.5 lets two trials share one (local, ray)."
)
@click.option("--memory", metavar="SIZE", help="Main memory per trial, such as 16G (slurm, ray).")
@click.option("--time", metavar="TIME", help="Longest time of an attempt at a trial, such as 2h or 1-12:00:00 (slurm).")
@click.option(
    "--only",
    metavar="TRIALS",
    help="Train these trials of the table here and nothing else, as in 0-9; other machines train the others into the "
    "same folder, and `jepa-lab report` gathers. See docs/machines.md.",
)
@click.option("--arm", "arm", metavar="ARM", multiple=True, help="Like --only: train the trials of this arm here.")
@click.option("--seed", "seed", metavar="SEEDS", help="Like --only: train the trials of these seeds here.")
@click.option("--storage", help="Optuna storage URL (default: a journal in the sweep's folder).")
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of its time, and stop.")
@prints_result(quiet="Print the path of the sweep folder alone.")
def sweep(
    file: Path,
    overrides: tuple[str, ...],
    preset: str | None,
    base: Path | None,
    seeds: str | None,
    arms: tuple[str, ...],
    metric: str | None,
    sweeps: Path,
    slots: int | None,
    slots_per_gpu: int | None,
    executor: str | None,
    executor_options: tuple[str, ...],
    cpus: int | None,
    gpus: float | None,
    memory: str | None,
    time: str | None,
    only: str | None,
    arm: tuple[str, ...],
    seed: str | None,
    storage: str | None,
    dry_run: bool,
) -> CommandResult:
    """Train every arm of the ablation FILE with every seed, and compare them. Run it again to resume.

    FILE is a path, or the name of an ablation that comes with jepa-lab, such as `predictor_size`; or a pipeline, with
    several values of the keys to compare.
    """
    from jepa_lab.api.inputs import found_file
    from jepa_lab.api.sweeping import SweepRequest, prepare_sweep
    from jepa_lab.config.shipped import find_either
    from jepa_lab.sweeps.choices import Choices, parse_numbers
    from jepa_lab.sweeps.engine import EngineChoice
    from jepa_lab.sweeps.shares import ShareChoice
    from jepa_lab.training.team import refuse_torchrun

    refuse_torchrun("sweep")
    file, note = find_either(file, ("ablation", "pipeline"))
    if note is not None:
        say(f"note: {note}")
    choices = Choices(
        base=None if base is None else found_file(base, "pipeline"),
        seeds=None if seeds is None else parse_numbers(seeds, "--seeds", "seed"),
        metric=metric,
        arms=arms or None,
    )
    engine = EngineChoice(executor, executor_options, slots, slots_per_gpu, cpus, gpus, memory, time)
    request = SweepRequest(file, overrides, preset, choices, sweeps, engine, storage)
    prepared, share = prepare_sweep(request), ShareChoice(only, arm, seed)
    if share:
        numbers = prepared.share(share)
        return _share_plan(prepared, numbers) if dry_run else _share_result(prepared.perform_share(numbers))
    return _plan(prepared) if dry_run else _result(prepared.perform(), prepared.planned)


def _plan(prepared: PreparedSweep) -> CommandResult:
    from jepa_lab.sweeps.estimate import plan_as_json, print_plan

    planned, engine = prepared.planned, prepared.engine
    prepared.check_references()

    def show() -> None:
        print_plan(planned.plan, engine)
        if planned.grid is not None:
            click.echo(f"\n{planned.text(prepared.request.sweeps)}", nl=False)
        refuse_lost_output()

    return CommandResult(lambda: plan_as_json(planned.plan, engine), None, show)


def _result(outcome: SweepOutcome, planned: Planned) -> CommandResult:
    from jepa_lab.reports.report import print_table
    from jepa_lab.reports.table_json import table_as_json

    folder, stopped_by = outcome.folder, outcome.stopped_by
    page, again = folder.report / "report.html", planned.command(folder.record.config)

    def show() -> None:
        print_table(outcome.report)
        click.echo(f"sweep folder: {folder.path}\nreport:       {page}")
        if folder.best.exists():
            click.echo(f"best point:   {folder.best}, a pipeline for `jepa-lab run`")
        click.echo(f"tracking:     {outcome.tracker}")
        if not outcome.mirror.complete:
            click.echo(outcome.mirror.sentence(folder.path))
        if again is not None:
            click.echo(f"ablation:     {folder.record.config}; the same sweep is `{again}`")
        if stopped_by is not None:
            click.echo(f"stopped by {stopped_by.name}; run the same command again to resume", err=True)

    def document() -> dict[str, Any]:
        return {
            "folder": str(folder.path),
            "page": str(page),
            "best": str(folder.best) if folder.best.exists() else None,
            "stopped_by": None if stopped_by is None else stopped_by.name,
            "tracking": outcome.tracker,
            "tracker_is_complete": outcome.mirror.complete,
            **table_as_json(outcome.report),
        }

    code = 0 if stopped_by is None else 128 + stopped_by
    return CommandResult(document, str(folder.path), show, exit_code=code)


def _share_plan(prepared: PreparedSweep, numbers: list[int]) -> CommandResult:
    from jepa_lab.sweeps.shares import share_frame

    plan = prepared.planned.plan
    frame = share_frame(plan, numbers)

    def show() -> None:
        click.echo(f"trials of {plan.folder_name} that would be trained here: {len(frame)} of {plan.num_trials}")
        click.echo(frame.to_string(index=False))

    return CommandResult(lambda: {"trials": frame.to_dict("records")}, None, show)


def _share_result(outcome: ShareOutcome) -> CommandResult:
    folder, stopped_by, trials = outcome.folder, outcome.stopped_by, outcome.trials
    shown = trials[["number", "arm", "seed", "status"]]
    failed = trials[trials["status"] == "FAILED"]

    def show() -> None:
        finished = int(trials["status"].isin(["FINISHED", "COLLAPSED"]).sum())
        click.echo(f"{finished} of {len(trials)} trials of this share are finished\nsweep folder: {folder.path}")
        for _, trial in failed.iterrows():
            click.echo(f"failed:       {trial['arm']} seed {trial['seed']}: {trial['error']}")
        if stopped_by is None:
            click.echo(f"gather with `jepa-lab report {shlex.quote(str(folder.path))}` when all shares are done")
        else:
            click.echo(f"stopped by {stopped_by.name}; run the same command again to resume", err=True)

    def document() -> dict[str, Any]:
        return {
            "folder": str(folder.path),
            "trials": shown.to_dict("records"),
            "stopped_by": None if stopped_by is None else stopped_by.name,
        }

    code = 0 if stopped_by is None else 128 + stopped_by
    return CommandResult(document, str(folder.path), show, outcome.error(), exit_code=code)
