"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from jepa_lab.commands.printing import say

OVERRIDES = "Overrides follow FILE as KEY=VALUE, values in YAML: training.epochs=10 masker=random"

runs_option = click.option(
    "--runs", default="runs", show_default=True, type=click.Path(path_type=Path), help="Folder of the run folders."
)
sweeps_option = click.option(
    "--sweeps",
    default="sweeps",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the sweep folders.",
)
preset_option = click.option("--preset", help="Apply a preset on top of FILE, before the overrides. Available: smoke.")
host_option = click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Interface to serve the pages on; 0.0.0.0 is all of them, for containers and shared nodes.",
)
no_open_option = click.option("--no-open", is_flag=True, help="Print the link without opening a browser.")


def found_file(given: Path, kind: Literal["pipeline", "ablation"]) -> Path:
    """The file that is meant, which may come with jepa-lab."""
    from jepa_lab.config.shipped import find_file

    file, note = find_file(given, kind)
    if note is not None:
        say(f"note: {note}")
    return file
