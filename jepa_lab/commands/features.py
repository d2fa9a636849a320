"""`jepa-lab features`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from jepa_lab.commands.completion import complete_source
from jepa_lab.commands.options import encoder_option, runs_option
from jepa_lab.commands.result import CommandResult, examples, prints_result
from jepa_lab.errors import ConfigError


@click.command(
    epilog=examples(
        "jepa-lab features digits-6d1a40b1-s0 photos --out photos.parquet",
        "jepa-lab features my_encoder photos --out patches.safetensors --patches",
    )
)
@click.argument("source", metavar="RUN|SOURCE", shell_complete=complete_source)
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .parquet, .npz or .safetensors. It must not exist.",
)
@click.option("--patches", is_flag=True, help="Write the features of every patch instead of their average.")
@encoder_option
@click.option("--step", type=int, help="Checkpoint of the run (default: the last one).")
@click.option(
    "--layers",
    type=click.Choice(["last", "last_four"]),
    default="last",
    show_default=True,
    help="Features of the last block, or of the last four side by side.",
)
@click.option("--image-size", type=int, help="Height and width in pixels to see images at (default: the source's).")
@click.option("--channel-mean", metavar="R,G,B", help="Of pixels in [0, 1], for a source that does not say it.")
@click.option("--channel-std", metavar="R,G,B", help="Of pixels in [0, 1], for a source that does not say it.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Images in one pass.")
@click.option("--device", help="Such as cpu or cuda (default: a GPU where there is one).")
@click.option(
    "--on-bad-image",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="`skip` leaves out files that are not images, and names them.",
)
@click.option("--uri", help="Tracking URI of models:/ and runs:/.")
@runs_option
@prints_result(quiet="Print the path of the file alone.")
def features(
    source: str,
    images: Path,
    out: Path,
    patches: bool,
    encoder: Literal["target", "context"],
    step: int | None,
    layers: Literal["last", "last_four"],
    image_size: int | None,
    channel_mean: str | None,
    channel_std: str | None,
    batch_size: int,
    device: str | None,
    on_bad_image: Literal["error", "skip"],
    uri: str | None,
    runs: Path,
) -> CommandResult:
    """Write the features of every image below the folder IMAGES into one file. Run it again to resume.

    RUN is the name of a run under --runs, or the path of its folder; SOURCE any other encoder, see
    `jepa-lab list weight_source`. A row is the path of an image, relative to IMAGES, and its features.
    """
    from jepa_lab.api.encoder import load_encoder
    from jepa_lab.api.errors import in_options
    from jepa_lab.api.features import features as write_features

    with in_options():
        loaded = load_encoder(
            source,
            encoder=encoder,
            step=step,
            layers=layers,
            image_size=image_size,
            channel_mean=_numbers("--channel-mean", channel_mean),
            channel_std=_numbers("--channel-std", channel_std),
            runs=runs,
            uri=uri,
        )
        written = write_features(
            loaded,
            images,
            out,
            patches=patches,
            batch_size=batch_size,
            device=device,
            on_bad_image=on_bad_image,
            say=click.echo,
        )
    skipped = [each.problem for each in written.skipped]

    def show() -> None:
        for note in written.notes:
            click.echo(f"note: {note}")
        for problem in skipped:
            click.echo(f"left out: {problem}")
        click.echo(f"wrote {written.path}: {' x '.join(map(str, written.shape))} features")

    def document() -> dict[str, Any]:
        shape = list(written.shape)
        return {"file": str(written.path), "shape": shape, "notes": list(written.notes), "left_out": skipped}

    return CommandResult(document, str(written.path), show)


def _numbers(option: str, text: str | None) -> Sequence[float] | None:
    """Raises:
    ConfigError: these are no numbers.
    """
    try:
        return None if text is None else [float(each) for each in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} must be numbers with commas between them, as in 0.5,0.5,0.5, got {text}") from None
