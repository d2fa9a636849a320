"""`jepa-lab ui`."""

from __future__ import annotations

import click


@click.command()
@click.option("--uri", help="Tracking URI (default: $MLFLOW_TRACKING_URI, else mlflow.db in this folder).")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(uri: str | None, port: int) -> None:
    """Open MLflow's web pages for a store of runs; only this machine can reach them."""
    from jepa_lab.tracking.ui import serve_ui

    serve_ui(uri, port, say=click.echo)
