"""`jepa-lab probe --encoder SOURCE PIPELINE`: any encoder, probed on a pipeline's data as its runs are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jepa_lab.build import PreparedData, prepare_data, prepare_probe_data, probe_image_size
from jepa_lab.config.checks import check_pipeline, pipeline_geometry
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data_record import data_record
from jepa_lab.errors import ConfigError
from jepa_lab.evaluation import check_probes, probe_rows, probe_splits
from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ENCODER_SIZES
from jepa_lab.randomness import build_generator
from jepa_lab.training.devices import memory_errors, resolve_compute
from jepa_lab.weights.encoder_parts import EncoderParts, at_grid, untrained_parts
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.plain import plain_encoder_of
from jepa_lab.weights.sources import WEIGHT_SOURCES
from jepa_lab.weights.sources.base import SourceContext, load_source


@dataclass(frozen=True)
class ProbedSource:
    """What was found.

    Attributes:
        content: as of `jepa-lab probe RUN`: metrics, `probe`, `probe_titles`, and what is known of the source.
        notes: sentences about the encoder that a reader should know.
    """

    content: dict[str, Any]
    notes: tuple[str, ...]


def probe_source(
    loaded: LoadedPipeline, source: str, context: SourceContext, say: Callable[[str], None], *, score_test: bool = False
) -> ProbedSource:
    """Probe an encoder that this pipeline did not train; nothing is trained but the probes.

    The pipeline says data, splits and probes. The encoder's own patch size and normalisation hold; its positions are
    resampled where the images have another size than its own. The controls are the same architecture with random
    weights, and raw pixels.

    Raises:
        ConfigError: no such source, or it does not fit the images. DataError: the images are missing.
    """
    assert WEIGHT_SOURCES.names(), "sources register on import"
    check_pipeline(loaded)
    _refuse_levels(loaded)
    found = load_source(source, replace(context, size=pipeline_geometry(loaded.pipeline).encoder))
    return probe_found(loaded, found, say, score_test=score_test)


def probe_found(
    loaded: LoadedPipeline, found: ForeignEncoder, say: Callable[[str], None], *, score_test: bool = False
) -> ProbedSource:
    """`probe_source` of an encoder that is loaded already."""
    check_pipeline(loaded)
    _refuse_levels(loaded)
    pipeline = _with_encoder(loaded.pipeline, found, score_test)
    with memory_errors(pipeline.training):
        return _probe(replace(loaded, pipeline=pipeline), found, say)


def _refuse_levels(loaded: LoadedPipeline) -> None:
    """An encoder from elsewhere has no pyramid.

    Raises:
        ConfigError: the pipeline's probe reads one.
    """
    levels = loaded.pipeline.probe.levels
    if levels is not None:
        raise loaded.error(
            "probe.levels",
            f"probe.levels={list(levels)} reads levels of a pyramid that a run has trained with its encoder, and "
            "--encoder names an encoder alone; add probe.levels=null",
        )


def _with_encoder(pipeline: Pipeline, found: ForeignEncoder, score_test: bool) -> Pipeline:
    """The pipeline as if it had this encoder: its sizes decide about memory and layers."""
    size, patch_size = found.parts.size, found.parts.patch_size
    side = probe_image_size(pipeline)
    if side % patch_size:
        raise ConfigError(
            f"{found.source} has patches of {patch_size} px, which do not divide images of {side} px; add "
            f"probe.image_size={max(1, round(side / patch_size)) * patch_size}"
        )
    numbers = {
        "embed_dim": size.embed_dim,
        "depth": size.depth,
        "num_heads": size.num_heads,
        "mlp_ratio": size.mlp_ratio,
    }
    custom = ENCODER_SIZES.get("custom").config_type.model_validate(numbers)
    encoder = pipeline.encoder.model_copy(update={"size": custom, "patch_size": patch_size})
    probe = pipeline.probe.model_copy(update={"score_test": score_test})
    return pipeline.model_copy(update={"encoder": encoder, "probe": probe})


def _probe(loaded: LoadedPipeline, found: ForeignEncoder, say: Callable[[str], None]) -> ProbedSource:
    pipeline = loaded.pipeline
    if pipeline.training.num_threads is not None:
        torch.set_num_threads(pipeline.training.num_threads)
    with loaded.located("training"):
        compute = resolve_compute(pipeline.training)
    with loaded.located("data"):
        data = prepare_data(pipeline, compute.device)
    parts, notes = _fitted(found, data, pipeline)
    section = "data" if pipeline.probe.data is None else "probe.data"
    with loaded.located(section):
        probe_data = prepare_probe_data(pipeline, data, compute.device)
        as_trained = replace(probe_data, mean=parts.mean, std=parts.std)
        splits = probe_splits(probe_data)
    if splits is not None:
        check_probes(loaded, splits)
    untrained = untrained_parts(parts, build_generator(pipeline.seed, "untrained encoder"))
    encoders = {
        "trained": plain_encoder_of(parts).to(compute.device),
        "random_encoder": plain_encoder_of(untrained).to(compute.device),
    }
    with tempfile.TemporaryDirectory() as scratch:
        metrics, details = probe_rows(pipeline, encoders, as_trained, compute, Path(scratch), announce=say)
        # Normalised as for every run on these images: its outcome is the same, and is kept.
        of_pixels = probe_rows(pipeline, {"raw_pixels": None}, probe_data, compute, Path(scratch), announce=say)
    metrics |= of_pixels[0]
    if details["probe"] is not None:
        details["probe"] |= of_pixels[1]["probe"]
    content = {
        "encoder": {"source": found.source, "left_out": list(found.left_out), "size": str(parts.size)},
        "settings": pipeline.probe.model_dump(mode="json"),
        "metrics": metrics,
        **details,
        **data_record(data, probe_data),
    }
    return ProbedSource(content, notes)


def _fitted(found: ForeignEncoder, data: PreparedData, pipeline: Pipeline) -> tuple[EncoderParts, tuple[str, ...]]:
    """The encoder for the images of the pipeline, and what to know about it.

    Raises:
        ConfigError: the images have another number of channels, or the positions cannot be resampled.
    """
    parts, notes = found.parts, []
    channels = data.train.images.shape[1]
    if parts.num_channels != channels:
        raise ConfigError(
            f"{found.source} takes images of {parts.num_channels} channels, data.dataset has {channels}; probe it on "
            "data with as many"
        )
    if not found.knows_normalization:
        parts = replace(parts, mean=data.mean, std=data.std)
        notes.append(
            f"{found.source} does not say how its images were normalised, so the mean and standard deviation of the "
            "data are used; data.channel_mean and data.channel_std say others"
        )
    side = probe_image_size(pipeline) // parts.patch_size
    grid = Grid(side, side)
    if grid != parts.grid:
        notes.append(f"its positions were resampled from a grid of {parts.grid} patches to one of {grid}")
        parts = at_grid(parts, grid)
    if found.left_out:
        notes.append(f"left out, as no part of the encoder: {', '.join(found.left_out)}")
    return parts, tuple(notes)
