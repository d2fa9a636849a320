"""`jepa-lab masks`: a pipeline's masks on images of its own data set."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_lab.build import build_dataset, build_sampler
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.figures.masks import draw_masks
from jepa_lab.maskers.statistics import mask_statistics
from jepa_lab.randomness import build_generator
from jepa_lab.training.devices import memory_errors

_IMAGES = 8
_STATISTICS_BATCHES = 16


def draw_pipeline_masks(loaded: LoadedPipeline, out: Path) -> None:
    """Write a PNG of the masks that the run's first batch begins with, and how often each patch is used.

    Raises:
        DataError, ConfigError: as for the run. RunStopped: the images do not fit into memory.
    """
    pipeline = loaded.pipeline
    sampler = build_sampler(pipeline)
    batch_size = pipeline.training.batch_size
    with loaded.located("data"), memory_errors(pipeline.training):
        images = build_dataset(pipeline.data, pipeline.data.image_size).load().train.images
    chosen = torch.randperm(len(images), generator=build_generator(pipeline.seed, "picture"))[:_IMAGES]
    # Drawn for a whole batch: what is left of a context depends on the batch it is in.
    masks = sampler.sample(max(batch_size, len(chosen)), build_generator(pipeline.seed, "masks"))
    statistics = mask_statistics(sampler.masker, sampler.batching, batch_size, _STATISTICS_BATCHES, seed=pipeline.seed)
    draw_masks(images[chosen], masks[: len(chosen)], sampler.masker.grid, statistics, out)
