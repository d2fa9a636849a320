"""`jepa-lab masks`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import OVERRIDES, found_file, preset_option


@click.command(epilog=OVERRIDES)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@preset_option
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG to write.")
def masks(file: Path, overrides: tuple[str, ...], preset: str | None, out: Path) -> None:
    """Draw context (green) and target (red) patches on images of FILE's data set."""
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.mask_picture import draw_pipeline_masks

    loaded = load_pipeline(found_file(file, "pipeline"), overrides, preset)
    check_pipeline(loaded)
    draw_pipeline_masks(loaded, out)
    click.echo(f"wrote {out}")
