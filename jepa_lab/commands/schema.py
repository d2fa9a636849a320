"""`jepa-lab schema`."""

from __future__ import annotations

import click

from jepa_lab.commands.printing import PrintingCommand


@click.command(cls=PrintingCommand)
@click.option("--ablation", is_flag=True, help="Print the schema of ablation files instead.")
def schema(ablation: bool) -> None:
    """Print the JSON schema of pipeline files, for editors."""
    import json

    from jepa_lab.config.loading import load_plugins
    from jepa_lab.config.pipeline import Pipeline
    from jepa_lab.sweeps.ablation import Ablation

    load_plugins([])
    model = Ablation if ablation else Pipeline
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    click.echo(json.dumps(document, indent=1))
