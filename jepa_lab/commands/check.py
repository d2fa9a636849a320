"""`jepa-lab check`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import OVERRIDES, found_file, preset_option
from jepa_lab.commands.printing import PrintingCommand


@click.command(cls=PrintingCommand, epilog=OVERRIDES)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@preset_option
def check(file: Path, overrides: tuple[str, ...], preset: str | None) -> None:
    """Validate FILE without training: resolved YAML, sizes, FLOPs, steps, masks.

    FILE is a path, or the name of a pipeline that comes with jepa-lab, such as `digits`.
    """
    from jepa_lab.composition.tracker import build_tracker
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import dump_pipeline, load_pipeline
    from jepa_lab.inspection import inspect_pipeline, print_inspection

    loaded = load_pipeline(found_file(file, "pipeline"), overrides, preset)
    geometry = check_pipeline(loaded, elsewhere=True)
    tracker = build_tracker(loaded.pipeline, None)
    click.echo(dump_pipeline(loaded.pipeline))
    print_inspection(inspect_pipeline(loaded), geometry)
    click.echo(f"tracking: {tracker.describe()}")
