"""`jepa-lab sweep`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from jepa_lab.commands.options import found_file, sweeps_option
from jepa_lab.commands.printing import refuse_lost_output


@click.command(epilog="Overrides follow FILE as KEY=VALUE and hold for every arm: data.root=FOLDER training.epochs=10")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Apply a preset to every arm, with fewer seeds. Available: smoke.")
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
    sweeps: Path,
    slots: int | None,
    slots_per_gpu: int | None,
    storage: str | None,
    dry_run: bool,
) -> None:
    """Train every arm of the ablation FILE with every seed, and compare them. Run it again to resume.

    FILE is a path, or the name of an ablation that comes with jepa-lab, such as `predictor_size`.
    """
    from jepa_lab.reports.report import print_table
    from jepa_lab.sweeps.estimate import print_plan
    from jepa_lab.sweeps.executors import EXECUTORS
    from jepa_lab.sweeps.plan import load_plan
    from jepa_lab.sweeps.sweep import SweepSettings, run_sweep
    from jepa_lab.training.team import refuse_torchrun

    refuse_torchrun("sweep")
    file = found_file(file, "ablation")
    plan = load_plan(file, overrides, preset)
    local = EXECUTORS.get("local")
    executor = local.config_type.model_validate({"slots": slots, "slots_per_gpu": slots_per_gpu})
    local.component.planned_slots(executor, plan.on_gpu)  # refuses what cannot be meant, before anything is written
    if dry_run:
        print_plan(plan, executor)
        refuse_lost_output()
        return
    outcome = run_sweep(plan, file.read_text(encoding="utf-8"), SweepSettings(sweeps, storage, executor, sys.argv))
    print_table(outcome.report)
    click.echo(f"sweep folder: {outcome.folder.path}\nreport:       {outcome.folder.report / 'report.html'}")
    click.echo(f"tracking:     {outcome.tracker}")
    if not outcome.mirror.complete:
        click.echo(outcome.mirror.sentence(outcome.folder.path))
    if outcome.stopped_by is not None:
        click.echo(f"stopped by {outcome.stopped_by.name}; run the same command again to resume", err=True)
        sys.exit(128 + outcome.stopped_by)
