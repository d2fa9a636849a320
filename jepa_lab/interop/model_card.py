"""The README.md of an export: what the encoder is, what was measured with it, and how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jepa_lab import __version__
from jepa_lab.config.loading import dump_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.errors import RunFolderError
from jepa_lab.interop.exports.base import Usage
from jepa_lab.measures import headline, measure_of, number_of
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.weights.encoder_parts import EncoderParts

_ROWS = {
    "trained": "this encoder",
    "random_encoder": "control: the same encoder, not trained",
    "raw_pixels": "control: raw pixels",
}


@dataclass(frozen=True)
class Exported:
    """What a card is about.

    Attributes:
        encoder: "target" or "context". step: of the checkpoint.
        difference: see `ExportOutcome`. num_images: likewise.
    """

    folder: RunFolder
    pipeline: Pipeline
    encoder: str
    step: int
    parts: EncoderParts
    difference: float
    num_images: int


def model_card(exported: Exported, usage: Usage, name: str) -> str:
    """Markdown, with the front matter that the Hugging Face hub reads.

    Args:
        name: of the export's folder.
    """
    return "\n".join(_lines(exported, usage, name)) + "\n"


def _lines(exported: Exported, usage: Usage, name: str) -> Iterator[str]:
    parts, pipeline = exported.parts, exported.pipeline
    yield from ("---", f"library_name: {usage.library}", "pipeline_tag: image-feature-extraction")
    yield from ("tags: [self-supervised-learning, i-jepa, jepa-lab]", "---", "", f"# {name}", "")
    height, width = parts.image_size
    yield (
        f"The {exported.encoder} encoder of an I-JEPA run after {exported.step:,} steps: a vision transformer without "
        f"a class token, {parts.size.embed_dim} wide, {parts.size.depth} blocks, {parts.size.num_heads} heads, patches "
        f"of {parts.patch_size} px on images of {height}x{width} px with {parts.num_channels} "
        f"channel{'' if parts.num_channels == 1 else 's'}. It was pretrained without labels (Assran et al. 2023, "
        f"arXiv:2301.08243) by jepa-lab {__version__}."
    )
    yield from ("", "## Use", "", f"```python\n{_code(exported, usage)}```", "")
    yield (
        f"Pictures are resized until their shorter side has {_shorter_side(parts)} px, the centre is cut out, and "
        f"pixels between 0 and 1 are normalised with the mean {_numbers(parts.mean)} and the standard deviation "
        f"{_numbers(parts.std)} of each channel."
    )
    yield from ("", "## Data", "", _data(exported), "", "## What was measured", "")
    yield from _probe(exported)
    yield from ("", "## Check", "")
    yield (
        f"This folder was read back by the library that it is for: features of {exported.num_images} validation images "
        f"differ from those of jepa-lab by at most {exported.difference:.1e}."
    )
    yield from ("", "## Recipe", "", "```yaml", dump_pipeline(pipeline).rstrip(), "```", "", "## Licence", "")
    yield (
        "jepa-lab, and with it the code in this folder, is under the Apache License 2.0. The weights were made from "
        "the data named above, whose terms may bind them, too; whoever passes them on states their licence here."
    )


def _code(exported: Exported, usage: Usage) -> str:
    side = exported.parts.image_size[0]
    mode = "L" if exported.parts.num_channels == 1 else "RGB"
    values = {"SHORTER_SIDE": str(_shorter_side(exported.parts)), "IMAGE_SIZE": str(side), '"MODE"': f'"{mode}"'}
    code = usage.code
    for word, value in values.items():
        code = code.replace(word, value)
    return code


def _shorter_side(parts: EncoderParts) -> int:
    return round(min(parts.image_size) / parts.crop_fraction)


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4f}" for value in values.tolist())


def _data(exported: Exported) -> str:
    recorded = exported.folder.read_description().dataset
    assert recorded is not None, "a run that has a checkpoint knows its images"
    return f"`{recorded.name}` (digest `{recorded.digest}`); seed {exported.pipeline.seed}."


def _probe(exported: Exported) -> Iterator[str]:
    """The accuracies of the run's own probe with its controls, where it measured this encoder."""
    result = _result(exported.folder)
    if result is None or result.get("probe") is None:
        yield "The run has not been probed."
        return
    probed = exported.pipeline.probe.encoder
    if exported.encoder != probed or result["last_step"] != exported.step:
        yield f"The run's probe measured another one, the {probed} encoder after {result['last_step']:,} steps:"
        yield ""
    levels = exported.pipeline.probe.levels
    if levels is not None:
        yield (
            f"The probe read the levels {', '.join(map(str, levels))} of the run's feature pyramid, which is not part "
            "of this export; `jepa-lab probe RUN probe.levels=null` measures the encoder alone."
        )
        yield ""
    method, title = next(iter(result["probe_titles"].items()))
    measure = measure_of(result["probe"]["trained"][method]["scores"][0])
    yield f"{headline(measure)} in percent of {title}, one run:"
    yield from ("", "| features | validation | test [95% interval over images] |", "| --- | --- | --- |")
    rows: Mapping[str, Any] = result["probe"]
    for row, words in _ROWS.items():
        score = rows.get(row, {}).get(method, {"scores": [None]})["scores"][0]
        if score is not None:
            yield f"| {words} | {_percent(number_of(score, 'validation'))} | {_with_interval(score)} |"


def _result(folder: RunFolder) -> dict[str, Any] | None:
    try:
        return folder.read_result()
    except RunFolderError:
        return None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _with_interval(score: Mapping[str, Any]) -> str:
    interval = score["test_interval"]
    told = "" if interval is None else f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"
    return f"{_percent(number_of(score, 'test'))}{told}"
