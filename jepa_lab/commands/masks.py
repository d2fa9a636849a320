"""`jepa-lab masks`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.completion import complete_override, complete_pipeline
from jepa_lab.commands.options import OVERRIDES, preset_option
from jepa_lab.commands.result import CommandResult, examples, prints_result, wrote


@click.command(
    epilog=examples(
        "jepa-lab masks digits --out masks.png",
        "jepa-lab masks cifar10 masker=random --out random.png",
        before=OVERRIDES,
    )
)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=complete_pipeline)
@click.argument("overrides", nargs=-1, shell_complete=complete_override)
@preset_option
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG to write.")
@prints_result(quiet="Print the path of the PNG alone.")
def masks(file: Path, overrides: tuple[str, ...], preset: str | None, out: Path) -> CommandResult:
    """Draw context (green) and target (red) patches on images of FILE's data set."""
    from jepa_lab.api.inputs import found_file
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.mask_picture import draw_pipeline_masks

    loaded = load_pipeline(found_file(file, "pipeline"), overrides, preset)
    check_pipeline(loaded)
    draw_pipeline_masks(loaded, out)
    return wrote(out)
