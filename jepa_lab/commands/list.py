"""`jepa-lab list`."""

from __future__ import annotations

import click

from jepa_lab.commands.printing import PrintingCommand
from jepa_lab.commands.result import CommandResult, examples, prints_result


@click.command(
    name="list",
    cls=PrintingCommand,
    epilog=examples("jepa-lab list", "jepa-lab list masker --quiet", "jepa-lab list masker --plugin my_masker --json"),
)
@click.argument("family", required=False)
@click.option("--markdown", is_flag=True, help="Print the page docs/components.md.")
@click.option("--plugin", "plugins", multiple=True, help="Module to import first, as under plugins: in a pipeline.")
@prints_result(quiet="Print the names alone, one per line.")
def list_components(family: str | None, markdown: bool, plugins: tuple[str, ...]) -> CommandResult:
    """Show the components of every family, or of FAMILY: summary, source, fields."""
    import jepa_lab.feature_files.formats
    import jepa_lab.interop.exports
    import jepa_lab.sweeps.executors
    import jepa_lab.weights.sources  # noqa: F401  (families that no pipeline names)
    from jepa_lab.catalogue import catalogue, catalogue_as_markdown, names_of, print_catalogue
    from jepa_lab.config.loading import load_plugins

    load_plugins(plugins)
    families = catalogue(family)

    def show() -> None:
        if markdown:
            click.echo(catalogue_as_markdown(families), nl=False)
        else:
            print_catalogue(families)

    return CommandResult(lambda: families, "\n".join(names_of(families)), show)
