"""`jepa-lab sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jepa_lab.commands.options import found_file, sweeps_option
from jepa_lab.commands.printing import refuse_lost_output, say

if TYPE_CHECKING:
    from jepa_lab.sweeps.sweep import SweepOutcome

_EXAMPLES = """\b
Examples:
  jepa-lab sweep predictor_size --preset smoke      the whole job, small, in minutes
  jepa-lab sweep masker --dry-run                   the plan and its time
  jepa-lab sweep masker --base cifar10 --seeds 0-2 --arms 'one block'
  jepa-lab sweep digits masker=multi_block,random loss=l2,smooth_l1 --seeds 0-2

Overrides follow FILE as KEY=VALUE and hold for every arm: data.root=FOLDER training.epochs=10. After a pipeline,
KEY=VALUE,VALUE is a key to compare: every combination is an arm, and the first value of each key is the baseline.
"""


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Apply a preset to every arm, with fewer seeds. Available: smoke.")
@click.option(
    "--base",
    metavar="PIPELINE",
    type=click.Path(path_type=Path),
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
@click.option("--storage", help="Optuna storage URL (default: a journal in the sweep's folder).")
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of its time, and stop.")
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
    storage: str | None,
    dry_run: bool,
) -> None:
    """Train every arm of the ablation FILE with every seed, and compare them. Run it again to resume.

    FILE is a path, or the name of an ablation that comes with jepa-lab, such as `predictor_size`; or a pipeline, with
    several values of the keys to compare.
    """
    from jepa_lab.config.shipped import find_either
    from jepa_lab.sweeps.choices import Choices, parse_seeds
    from jepa_lab.sweeps.estimate import print_plan
    from jepa_lab.sweeps.executors import EXECUTORS
    from jepa_lab.sweeps.planned import plan_file
    from jepa_lab.sweeps.sweep import SweepSettings, refuse_references, run_sweep
    from jepa_lab.training.team import refuse_torchrun

    refuse_torchrun("sweep")
    file, note = find_either(file, ("ablation", "pipeline"))
    if note is not None:
        say(f"note: {note}")
    choices = Choices(
        base=None if base is None else found_file(base, "pipeline"),
        seeds=None if seeds is None else parse_seeds(seeds),
        metric=metric,
        arms=arms or None,
    )
    planned = plan_file(file, overrides, preset, choices)
    local = EXECUTORS.get("local")
    executor = local.config_type.model_validate({"slots": slots, "slots_per_gpu": slots_per_gpu})
    # Refuses what cannot be meant, before anything is written.
    local.component.planned_slots(executor, planned.plan.on_gpu)
    if dry_run:
        refuse_references(planned.plan, sweeps)
        print_plan(planned.plan, executor)
        if planned.grid is not None:
            click.echo(f"\n{planned.text(sweeps)}", nl=False)
        refuse_lost_output()
        return
    outcome = run_sweep(planned.plan, planned.text(sweeps), SweepSettings(sweeps, storage, executor, sys.argv))
    _print_outcome(outcome)
    again = planned.command(outcome.folder.record.config)
    if again is not None:
        click.echo(f"ablation:     {outcome.folder.record.config}; the same sweep is `{again}`")
    if outcome.stopped_by is not None:
        click.echo(f"stopped by {outcome.stopped_by.name}; run the same command again to resume", err=True)
        sys.exit(128 + outcome.stopped_by)


def _print_outcome(outcome: SweepOutcome) -> None:
    from jepa_lab.reports.report import print_table

    print_table(outcome.report)
    click.echo(f"sweep folder: {outcome.folder.path}\nreport:       {outcome.folder.report / 'report.html'}")
    if outcome.folder.best.exists():
        click.echo(f"best point:   {outcome.folder.best}, a pipeline for `jepa-lab run`")
    click.echo(f"tracking:     {outcome.tracker}")
    if not outcome.mirror.complete:
        click.echo(outcome.mirror.sentence(outcome.folder.path))
