"""`jepa-lab probe`."""

from __future__ import annotations

from pathlib import Path

import click

from jepa_lab.commands.completion import complete_override, complete_probed, complete_source
from jepa_lab.commands.options import runs_option
from jepa_lab.commands.result import CommandResult, examples, prints_result
from jepa_lab.errors import ConfigError


@click.command(
    epilog=examples(
        "jepa-lab probe digits-6d1a40b1-s0 probe.layers=last_four",
        "jepa-lab probe digits-6d1a40b1-s0 'probe.additional=[attentive, low_shot]'",
        "jepa-lab probe digits-6d1a40b1-s0 --score-test",
        "jepa-lab probe --encoder in1k_vith14.pth.tar cifar10",
        before="Overrides can change the probe and the device: probe.encoder=context 'probe.additional=[finetune]'",
    )
)
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path), shell_complete=complete_probed)
@click.argument("overrides", nargs=-1, shell_complete=complete_override)
@click.option("--step", type=int, help="Checkpoint to probe (default: the last one).")
@click.option(
    "--score-test", is_flag=True, help="Score the test split, too, once per probe; the looks at it are counted."
)
@click.option(
    "--encoder",
    metavar="SOURCE",
    shell_complete=complete_source,
    help="Probe the encoder of SOURCE on the data of the pipeline FILE: a run, an export, models:/..., runs:/..., a "
    "released checkpoint, a folder of timm or transformers; see `jepa-lab list weight_source`.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="With --encoder: JSON file to write.")
@click.option("--uri", help="With --encoder: tracking URI of models:/ and runs:/.")
@runs_option
@prints_result(quiet="Print the path of the file that was written alone.")
def probe(
    run: Path,
    overrides: tuple[str, ...],
    step: int | None,
    score_test: bool,
    encoder: str | None,
    out: Path | None,
    uri: str | None,
    runs: Path,
) -> CommandResult:
    """Probe a run's encoder again, with the same or other settings or data, on the validation split.

    RUN is the name of a run under --runs, or the path of its folder. With --encoder, FILE is a pipeline, which says
    data and probes; nothing is pretrained.
    """
    from jepa_lab.api.probing import ProbeRequest, probe_elsewhere, probe_run
    from jepa_lab.summary import print_probe

    if encoder is None:
        if out is not None or uri is not None:
            raise ConfigError("--out and --uri go with --encoder; the file of a run's probe lies in its folder")
        result = probe_run(run, runs, overrides, step, score_test=score_test)
    else:
        if step is not None:
            raise ConfigError("--step is of a run; with --encoder leave it out")
        result = probe_elsewhere(encoder, ProbeRequest(run, overrides, score_test, out, runs, uri), click.echo)

    def show() -> None:
        print_probe(result.content)
        for note in result.notes:
            click.echo(f"note: {note}")
        if result.file is not None:
            click.echo(f"wrote {result.file}")

    file = None if result.file is None else str(result.file)
    return CommandResult(lambda: {**result.content, "notes": list(result.notes), "file": file}, file, show)
