"""The command line. Commands import torch and its friends only when they need them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jepa_lab import __version__
from jepa_lab.errors import ConfigError, JepaLabError

if TYPE_CHECKING:
    from jepa_lab.run import RunOutcome

_OVERRIDES = "Overrides follow FILE as KEY=VALUE, values in YAML: training.epochs=10 masker=random"


class _Group(click.Group):
    """Turns our errors into one message and their exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except JepaLabError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(141)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Pretrain image encoders by I-JEPA, probe them honestly, and compare choices."""
    logging.getLogger("jepa_lab").addHandler(logging.NullHandler())


@main.command(epilog=_OVERRIDES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Overlay between FILE and the overrides: smoke.")
@click.option(
    "--runs",
    default="runs",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the run folders.",
)
@click.option("--resume", metavar="RUN_FOLDER", type=click.Path(path_type=Path), help="Go on with this run.")
def run(file: Path | None, overrides: tuple[str, ...], preset: str | None, runs: Path, resume: Path | None) -> None:
    """Train and probe the pipeline FILE, or go on with a run."""
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.run import resume_run, start_run
    from jepa_lab.tracking.run_folder import RunFolder

    if file is not None and "=" in str(file) and resume is not None:  # overrides alone
        file, overrides = None, (str(file), *overrides)
    if resume is not None:
        folder = RunFolder.open(resume)
        source = folder.config if file is None else file
        given = load_pipeline(source, overrides, preset).pipeline if file or overrides or preset else None
        outcome = resume_run(folder, given)
    elif file is None:
        raise ConfigError("`jepa-lab run` needs a pipeline FILE, as in `jepa-lab run pipelines/digits.yaml`")
    else:
        outcome = start_run(load_pipeline(file, overrides, preset), runs, sys.argv)
    _print_outcome(outcome)


def _print_outcome(outcome: RunOutcome) -> None:
    from jepa_lab.summary import print_summary

    print_summary(outcome.result, outcome.folder.path, outcome.tracker)
    if not outcome.mirror.complete:
        click.echo(outcome.mirror.sentence(outcome.folder.path))


@main.command(epilog=_OVERRIDES)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Overlay between FILE and the overrides: smoke.")
def check(file: Path, overrides: tuple[str, ...], preset: str | None) -> None:
    """Validate FILE without training: resolved YAML, sizes, FLOPs, steps, masks."""
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import dump_pipeline, load_pipeline
    from jepa_lab.inspection import inspect_pipeline, print_inspection

    loaded = load_pipeline(file, overrides, preset)
    geometry = check_pipeline(loaded)
    click.echo(dump_pipeline(loaded.pipeline))
    print_inspection(inspect_pipeline(loaded), geometry)


@main.command()
def schema() -> None:
    """Print the JSON schema of pipeline files, for editors."""
    import json

    from jepa_lab.config.loading import load_plugins
    from jepa_lab.config.pipeline import Pipeline

    load_plugins([])
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Pipeline.model_json_schema()}
    click.echo(json.dumps(document, indent=1))


@main.command(name="list")
@click.argument("family", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--plugin", "plugins", multiple=True, help="Module to import first, as under plugins: in a pipeline.")
def list_components(family: str | None, as_json: bool, plugins: tuple[str, ...]) -> None:
    """Show the components of every family, or of FAMILY: summary, source, fields."""
    from jepa_lab.catalogue import catalogue, print_catalogue
    from jepa_lab.config.loading import load_plugins

    load_plugins(plugins)
    if as_json:
        import json

        click.echo(json.dumps(catalogue(family), indent=1))
    else:
        print_catalogue(catalogue(family))


@main.command(epilog=_OVERRIDES)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Overlay between FILE and the overrides: smoke.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG to write.")
def masks(file: Path, overrides: tuple[str, ...], preset: str | None, out: Path) -> None:
    """Draw context (green) and target (red) patches on images of FILE's data set."""
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.mask_picture import draw_pipeline_masks

    loaded = load_pipeline(file, overrides, preset)
    check_pipeline(loaded)
    draw_pipeline_masks(loaded, out)
    click.echo(f"wrote {out}")


@main.command(epilog="Overrides are those of the probe and device: probe.encoder=context probe.data.dataset=cifar100")
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--step", type=int, help="Checkpoint to probe; the last one by default.")
def probe(run_folder: Path, overrides: tuple[str, ...], step: int | None) -> None:
    """Probe a run's encoder again, also with other settings or on other data."""
    from jepa_lab.reprobe import probe_again
    from jepa_lab.summary import print_probe
    from jepa_lab.tracking.run_folder import RunFolder

    file, result = probe_again(RunFolder.open(run_folder), overrides, step)
    print_probe(result)
    click.echo(f"wrote {file}")


@main.command()
@click.argument("run_folders", nargs=-1, required=True, type=click.Path(path_type=Path))
def sync(run_folders: tuple[Path, ...]) -> None:
    """Complete the MLflow record of runs whose tracker was away."""
    from jepa_lab.tracking.mirror import sync as complete

    states = {path: complete(path) for path in run_folders}
    for path, state in states.items():
        click.echo(state.sentence(path))
    if not all(state.complete for state in states.values()):
        sys.exit(3)


@main.command()
@click.option("--uri", help="Tracking URI; by default mlflow.db in this folder.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(uri: str | None, port: int) -> None:
    """Open MLflow's pages on the runs of this folder, on this machine alone."""
    from jepa_lab.tracking.ui import serve_ui

    serve_ui(uri, port, say=click.echo)


if __name__ == "__main__":
    main()
