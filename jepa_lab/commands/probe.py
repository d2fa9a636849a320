"""`jepa-lab probe`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.options import found_file, runs_option
from jepa_lab.errors import ConfigError


@click.command(
    epilog="Overrides can change the probe and the device: probe.encoder=context 'probe.additional=[finetune]'"
)
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--step", type=int, help="Checkpoint to probe (default: the last one).")
@click.option(
    "--score-test", is_flag=True, help="Score the test split, too, once per probe; the looks at it are counted."
)
@click.option(
    "--encoder",
    metavar="SOURCE",
    help="Probe the encoder of SOURCE on the data of the pipeline FILE: a run, an export, models:/..., runs:/..., a "
    "released checkpoint, a folder of timm or transformers; see `jepa-lab list weight_source`.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="With --encoder: JSON file to write.")
@click.option("--uri", help="With --encoder: tracking URI of models:/ and runs:/.")
@runs_option
def probe(
    run: Path,
    overrides: tuple[str, ...],
    step: int | None,
    score_test: bool,
    encoder: str | None,
    out: Path | None,
    uri: str | None,
    runs: Path,
) -> None:
    """Probe a run's encoder again, with the same or other settings or data, on the validation split.

    RUN is the name of a run under --runs, or the path of its folder. With --encoder, FILE is a pipeline, which says
    data and probes; nothing is pretrained.
    """
    from jepa_lab.reprobe import probe_again
    from jepa_lab.summary import print_probe
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    if encoder is not None:
        if step is not None:
            raise ConfigError("--step is of a run; with --encoder leave it out")
        _probe_source(found_file(run, "pipeline"), overrides, encoder, (runs, uri, out), score_test)
        return
    if out is not None or uri is not None:
        raise ConfigError("--out and --uri go with --encoder; the file of a run's probe lies in its folder")
    file, result = probe_again(RunFolder.open(find_folder(run, [runs])), overrides, step, score_test=score_test)
    print_probe(result)
    click.echo(f"wrote {file}")


def _probe_source(
    file: Path, overrides: tuple[str, ...], source: str, places: tuple[Path, str | None, Path | None], score_test: bool
) -> None:
    """Probe an encoder that comes from elsewhere.

    Args:
        places: folder of run folders, tracking URI, and the file to write.
    """
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.interop.probe_source import probe_source
    from jepa_lab.looks import KIND, VERSION
    from jepa_lab.summary import print_probe
    from jepa_lab.tracking.records import write_record
    from jepa_lab.weights.sources.base import SourceContext

    runs, uri, out = places
    context = SourceContext((runs,), uri=uri)
    found = probe_source(load_pipeline(file, overrides), source, context, click.echo, score_test=score_test)
    print_probe(found.content)
    for note in found.notes:
        click.echo(f"note: {note}")
    if out is not None:
        write_record(out, KIND, VERSION, found.content)
        click.echo(f"wrote {out}")
