"""`jepa-lab probe --encoder SOURCE PIPELINE`: any encoder, probed on a pipeline's data as its runs are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jepa_lab.build import PreparedData, build_dataset, prepare_data, prepare_probe_data, probe_image_size
from jepa_lab.config.checks import check_pipeline, pipeline_geometry
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data_record import data_record
from jepa_lab.errors import ConfigError
from jepa_lab.evaluation import check_probes, probe_rows, probe_splits
from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ENCODER_SIZES
from jepa_lab.randomness import build_generator
from jepa_lab.training.devices import Compute, memory_errors, resolve_compute
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
    return probe_found(loaded, _found(loaded, source, context), say, score_test=score_test)


def probe_found(
    loaded: LoadedPipeline, found: ForeignEncoder, say: Callable[[str], None], *, score_test: bool = False
) -> ProbedSource:
    """`probe_source` of an encoder that is loaded already."""
    check_pipeline(loaded)
    _refuse_levels(loaded)
    pipeline = _with_encoder(loaded.pipeline, found, score_test)
    with memory_errors(pipeline.training):
        return _probe(replace(loaded, pipeline=pipeline), found, say)


def check_source(loaded: LoadedPipeline, source: str, context: SourceContext) -> None:
    """Refuse an encoder that could not be probed with this pipeline; no image is looked at.

    Raises:
        ConfigError: no such source, or it does not fit the images.
    """
    found = _found(loaded, source, context)
    _refuse_channels(found, build_dataset(loaded.pipeline.data, loaded.pipeline.data.image_size).num_channels)
    _at_probed_grid(found.parts, _with_encoder(loaded.pipeline, found, score_test=False))


def probe_reference(loaded: LoadedPipeline, source: str, context: SourceContext, predictions: Path) -> ProbedSource:
    """Probe an encoder without controls of its own: it stands beside those of others. Whether the test split is scored,
    the pipeline says.

    Args:
        predictions: file for the class of every validation and test image.
    Raises:
        ConfigError: no such source, or it does not fit the images. DataError: the images are missing.
    """
    found = _found(loaded, source, context)
    pipeline = _with_encoder(loaded.pipeline, found, score_test=loaded.pipeline.probe.score_test)
    with memory_errors(pipeline.training), tempfile.TemporaryDirectory() as scratch:
        bench = _bench(replace(loaded, pipeline=pipeline), found)
        encoders = {"trained": plain_encoder_of(bench.parts).to(bench.compute.device)}
        arguments = (encoders, bench.as_trained, bench.compute, Path(scratch))
        metrics, details = probe_rows(pipeline, *arguments, predictions=predictions)
    return ProbedSource(bench.content(pipeline, metrics, details), bench.notes)


def _found(loaded: LoadedPipeline, source: str, context: SourceContext) -> ForeignEncoder:
    """The encoder of a source, for a pipeline that can be run."""
    assert WEIGHT_SOURCES.names(), "sources register on import"
    check_pipeline(loaded)
    _refuse_levels(loaded)
    return load_source(source, replace(context, size=pipeline_geometry(loaded.pipeline).encoder))


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
    pipeline, bench = loaded.pipeline, _bench(loaded, found)
    compute, parts = bench.compute, bench.parts
    untrained = untrained_parts(parts, build_generator(pipeline.seed, "untrained encoder"))
    encoders = {
        "trained": plain_encoder_of(parts).to(compute.device),
        "random_encoder": plain_encoder_of(untrained).to(compute.device),
    }
    with tempfile.TemporaryDirectory() as scratch:
        metrics, details = probe_rows(pipeline, encoders, bench.as_trained, compute, Path(scratch), announce=say)
        # Normalised as for every run on these images: its outcome is the same, and is kept.
        of_pixels = probe_rows(pipeline, {"raw_pixels": None}, bench.probe_data, compute, Path(scratch), announce=say)
    metrics |= of_pixels[0]
    if details["probe"] is not None:
        details["probe"] |= of_pixels[1]["probe"]
    return ProbedSource(bench.content(pipeline, metrics, details), bench.notes)


@dataclass(frozen=True)
class _Bench:
    """An encoder with the images that it is probed on.

    Attributes:
        parts: as they are probed. notes: what to know about them.
        probe_data: normalised as for the runs of the pipeline. as_trained: the same as the encoder wants it.
    """

    found: ForeignEncoder
    parts: EncoderParts
    notes: tuple[str, ...]
    compute: Compute
    data: PreparedData
    probe_data: PreparedData
    as_trained: PreparedData

    def content(self, pipeline: Pipeline, metrics: dict[str, float | None], details: dict[str, Any]) -> dict[str, Any]:
        """What is kept of the result, as JSON values."""
        found = self.found
        return {
            "encoder": {"source": found.source, "left_out": list(found.left_out), "size": str(self.parts.size)},
            "settings": pipeline.probe.model_dump(mode="json"),
            "metrics": metrics,
            **details,
            **data_record(self.data, self.probe_data),
        }


def _bench(loaded: LoadedPipeline, found: ForeignEncoder) -> _Bench:
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
    return _Bench(found, parts, notes, compute, data, probe_data, as_trained)


def _fitted(found: ForeignEncoder, data: PreparedData, pipeline: Pipeline) -> tuple[EncoderParts, tuple[str, ...]]:
    """The encoder for the images of the pipeline, and what to know about it.

    Raises:
        ConfigError: the images have another number of channels, or the positions cannot be resampled.
    """
    parts, notes = found.parts, []
    _refuse_channels(found, data.train.images.shape[1])
    if not found.knows_normalization:
        parts = replace(parts, mean=data.mean, std=data.std)
        notes.append(
            f"{found.source} does not say how its images were normalised, so the mean and standard deviation of the "
            "data are used; data.channel_mean and data.channel_std say others"
        )
    fitted = _at_probed_grid(parts, pipeline)
    if fitted.grid != parts.grid:
        notes.append(f"its positions were resampled from a grid of {parts.grid} patches to one of {fitted.grid}")
    if found.left_out:
        notes.append(f"left out, as no part of the encoder: {', '.join(found.left_out)}")
    return fitted, tuple(notes)


def _refuse_channels(found: ForeignEncoder, channels: int) -> None:
    if found.parts.num_channels != channels:
        raise ConfigError(
            f"{found.source} takes images of {found.parts.num_channels} channels, data.dataset has {channels}; probe "
            "it on data with as many"
        )


def _at_probed_grid(parts: EncoderParts, pipeline: Pipeline) -> EncoderParts:
    """The encoder for the patch grid of the images that are probed."""
    side = probe_image_size(pipeline) // parts.patch_size
    grid = Grid(side, side)
    return parts if grid == parts.grid else at_grid(parts, grid)
