"""Options and arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)

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
encoder_option = click.option(
    "--encoder",
    type=click.Choice(["target", "context"]),
    default="target",
    show_default=True,
    help="Which of the run's two encoders.",
)
no_open_option = click.option("--no-open", is_flag=True, help="Print the link without opening a browser.")


def port_option(default: int) -> Callable[[FC], FC]:
    """`--port` of a command that serves pages."""
    number = click.IntRange(1, 65535)
    return click.option("--port", default=default, show_default=True, type=number, help="Port to serve the pages on.")
