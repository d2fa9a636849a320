"""`jepa-lab masks`: a pipeline's masks on images of its own data set."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from jepa_lab.build import build_dataset, build_sampler
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.centre_squares import cut_out
from jepa_lab.data.image_files import file_pixels, raise_first
from jepa_lab.data.images import Pictures, to_tensor
from jepa_lab.data.stored_side import stored_side
from jepa_lab.errors import DataError, keys_within
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
    with loaded.located("data"), keys_within("data", "dataset", "root"), memory_errors(pipeline.training):
        images = _some_images(pipeline)
    # Drawn for a whole batch: what is left of a context depends on the batch it is in.
    masks = sampler.sample(max(batch_size, len(images)), build_generator(pipeline.seed, "masks"))
    statistics = mask_statistics(sampler.masker, sampler.batching, batch_size, _STATISTICS_BATCHES, seed=pipeline.seed)
    draw_masks(images, masks[: len(images)], sampler.masker.grid, statistics, out)


def _some_images(pipeline: Pipeline) -> Tensor:
    """A few training images at random, [n, C, H, W] uint8; of a folder only these are decoded.

    Raises:
        DataError: the data set's files are missing, or one of these cannot be decoded.
    """
    side = pipeline.data.image_size
    dataset = build_dataset(pipeline.data, side)
    generator = build_generator(pipeline.seed, "picture")
    files = dataset.image_files()
    if files is None:
        images = to_tensor(dataset.load().train.images)
        return images[torch.randperm(len(images), generator=generator)[:_IMAGES]]
    order = torch.randperm(len(files.train.files), generator=generator)
    pixels = file_pixels(files, stored_side(files, side, pipeline.data.resize))
    found: list[Tensor] = []
    for index in order:  # further ones take the places of those that are skipped
        block = pixels.read(index[None])
        raise_first(block.bad, pipeline.data.on_bad_image)
        found += cut_out(Pictures(block.images, block.sizes), side, 1.0)
        if len(found) == _IMAGES:
            break
    if not found:
        raise DataError(f"no image of {files.source} can be decoded; fix the files")
    return torch.stack(found)
