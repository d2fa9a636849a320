"""`jepa-lab list`."""

from __future__ import annotations

import click

from jepa_lab.commands.printing import PrintingCommand
from jepa_lab.commands.result import examples


@click.command(
    name="list",
    cls=PrintingCommand,
    epilog=examples("jepa-lab list", "jepa-lab list masker", "jepa-lab list masker --plugin my_masker --json"),
)
@click.argument("family", required=False)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print the page docs/components.md.")
@click.option("--plugin", "plugins", multiple=True, help="Module to import first, as under plugins: in a pipeline.")
def list_components(family: str | None, form: str | None, plugins: tuple[str, ...]) -> None:
    """Show the components of every family, or of FAMILY: summary, source, fields."""
    import jepa_lab.feature_files.formats
    import jepa_lab.interop.exports
    import jepa_lab.sweeps.executors
    import jepa_lab.weights.sources  # noqa: F401  (families that no pipeline names)
    from jepa_lab.catalogue import catalogue, catalogue_as_markdown, print_catalogue
    from jepa_lab.config.loading import load_plugins

    load_plugins(plugins)
    if form == "json":
        import json

        click.echo(json.dumps(catalogue(family), indent=1))
    elif form == "markdown":
        click.echo(catalogue_as_markdown(catalogue(family)), nl=False)
    else:
        print_catalogue(catalogue(family))
