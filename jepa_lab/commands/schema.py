"""`jepa-lab schema`."""

from __future__ import annotations

import click

from jepa_lab.commands.printing import PrintingCommand
from jepa_lab.commands.result import examples


@click.command(
    cls=PrintingCommand,
    epilog=examples("jepa-lab schema > pipeline.schema.json", "jepa-lab schema --ablation > ablation.schema.json"),
)
@click.option("--ablation", is_flag=True, help="Print the schema of ablation files instead.")
@click.option("--keys", is_flag=True, help="Print every key of a pipeline with its choices, as shells complete them.")
def schema(ablation: bool, keys: bool) -> None:
    """Print the JSON schema of pipeline files, for editors."""
    import json

    from jepa_lab.config.key_list import key_list
    from jepa_lab.config.loading import load_plugins
    from jepa_lab.config.pipeline import Pipeline
    from jepa_lab.sweeps.ablation import Ablation

    load_plugins([])
    if keys:
        click.echo(json.dumps(key_list(Pipeline.model_json_schema()), indent=0))
        return
    model = Ablation if ablation else Pipeline
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    click.echo(json.dumps(document, indent=1))
