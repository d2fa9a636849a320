"""`jepa-lab compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jepa_lab.commands.options import runs_option, sweeps_option
from jepa_lab.commands.printing import PrintingCommand
from jepa_lab.commands.result import CommandResult, examples, prints_result


@click.command(
    cls=PrintingCommand,
    epilog=examples(
        "jepa-lab compare",
        "jepa-lab compare sweeps/masker-0f3c2a91 --format md",
        "jepa-lab compare --by masker.name --metric probe/knn_validation_accuracy",
        before="Without RUN or EXPERIMENT: the experiment $MLFLOW_EXPERIMENT_NAME, else jepa-lab.",
    ),
)
@click.argument("names", nargs=-1, metavar="[RUN | EXPERIMENT]...")
@click.option(
    "--metric", default="probe/validation_accuracy", show_default=True, help="Metric to compare the groups by."
)
@click.option("--by", metavar="KEY", help="Group by this parameter alone, such as masker.name.")
@click.option("--baseline", metavar="ARM", help="Group to compare the others with.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "csv", "tex"]),
    default="table",
    show_default=True,
    help="For the terminal, or as Markdown, CSV or LaTeX.",
)
@click.option(
    "--uri",
    help="Tracking URI (default: the store of the folders named, else $MLFLOW_TRACKING_URI, else mlflow.db in this "
    "folder).",
)
@runs_option
@sweeps_option
@prints_result(quiet="Print the table without the sentences below it.")
def compare(
    names: tuple[str, ...],
    metric: str,
    by: str | None,
    baseline: str | None,
    form: str,
    uri: str | None,
    runs: Path,
    sweeps: Path,
) -> CommandResult:
    """Compare runs recorded in MLflow, one line per group of runs that differ only in seed.

    RUN is a run id, a run name, a run folder, or a sweep (its folder or its own run), which stands for its trials.
    """
    from jepa_lab.reports.comparison import Question
    from jepa_lab.reports.comparison import compare as compare_runs
    from jepa_lab.reports.latex import render_latex
    from jepa_lab.reports.long_form import csv_text
    from jepa_lab.reports.markdown import render_markdown
    from jepa_lab.reports.table_json import table_as_json
    from jepa_lab.runs.predictions import predictions_of_run
    from jepa_lab.sweeps.objectives import direction_of
    from jepa_lab.sweeps.references import kept_references
    from jepa_lab.tables.terminal import table_as_lines
    from jepa_lab.tracking.mlflow_reading import read_runs
    from jepa_lab.tracking.run_folder import RunFolder

    direction = direction_of(metric)
    read = read_runs(names, uri, [runs, sweeps])
    compared = compare_runs(read.frame, Question(metric, direction == "maximize", by, baseline), read.source)
    kept = {folder: predictions_of_run(RunFolder(Path(folder))) for folder in compared.run_folders}
    compared = compared.with_predictions(kept)
    if compared.sweep_folder is not None:
        compared = compared.with_references(kept_references(Path(compared.sweep_folder), compared.content.seeds))
    text, footnotes = compared.as_text()
    writers = {
        "table": table_as_lines,
        "md": lambda table, notes: render_markdown([(table, notes)]),
        "tex": render_latex,
        "csv": lambda table, notes: csv_text(compared.content),
    }
    write = writers[form]

    def document() -> dict[str, Any]:
        return {**table_as_json(compared.content), "groups": dict(compared.values)}

    return CommandResult(document, write(text, ()).rstrip("\n"), lambda: click.echo(write(text, footnotes), nl=False))
