"""`jepa-lab ui`."""

from __future__ import annotations

import click

from jepa_lab.commands.options import host_option, no_open_option, port_option
from jepa_lab.commands.result import examples


@click.command(
    epilog=examples(
        "jepa-lab ui",
        "jepa-lab ui --uri sqlite:///elsewhere/mlflow.db --port 5001",
        "jepa-lab ui --host 0.0.0.0",
    )
)
@click.option("--uri", help="Tracking URI (default: $MLFLOW_TRACKING_URI, else mlflow.db in this folder).")
@port_option(5000)
@host_option
@no_open_option
def ui(uri: str | None, port: int, host: str, no_open: bool) -> None:
    """Open MLflow's web pages at the runs of a store."""
    from jepa_lab.pages import Place, open_browser
    from jepa_lab.tracking.ui import serve_ui

    show = (lambda link: False) if no_open else open_browser
    serve_ui(uri, Place(port, host), click.echo, show)
