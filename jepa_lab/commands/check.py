"""`jepa-lab check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jepa_lab.commands.completion import complete_override, complete_pipeline
from jepa_lab.commands.options import OVERRIDES, preset_option
from jepa_lab.commands.printing import PrintingCommand
from jepa_lab.commands.result import CommandResult, examples, prints_result


@click.command(
    cls=PrintingCommand,
    epilog=examples(
        "jepa-lab check digits", "jepa-lab check cifar10 encoder.size=small training.epochs=300", before=OVERRIDES
    ),
)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_pipeline)
@click.argument("overrides", nargs=-1, shell_complete=complete_override)
@preset_option
@prints_result(quiet="Print nothing: the exit code says whether FILE is valid.")
def check(file: Path, overrides: tuple[str, ...], preset: str | None) -> CommandResult:
    """Validate FILE without training: resolved YAML, sizes, FLOPs, steps, masks.

    FILE is a path, or the name of a pipeline that comes with jepa-lab, such as `digits`.
    """
    from jepa_lab.api.inputs import found_file
    from jepa_lab.composition.tracker import build_tracker
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import dump_pipeline, load_pipeline
    from jepa_lab.inspection import inspect_pipeline, inspection_as_json, print_inspection

    loaded = load_pipeline(found_file(file, "pipeline"), overrides, preset)
    geometry = check_pipeline(loaded, elsewhere=True)
    tracker = build_tracker(loaded.pipeline, None)
    inspection = inspect_pipeline(loaded)

    def show() -> None:
        click.echo(dump_pipeline(loaded.pipeline))
        print_inspection(inspection, geometry)
        click.echo(f"tracking: {tracker.describe()}")

    def document() -> dict[str, Any]:
        return {
            "pipeline": loaded.pipeline.model_dump(mode="json"),
            "sizes": inspection_as_json(inspection),
            "tracking": tracker.describe(),
        }

    return CommandResult(document, None, show)
