"""From a data set to its images: in memory, streaming from files, or mapped from the cache."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from jepa_lab.data.base import NOTHING_FOUND, Findings, ImageData, ImageDataset, ImageFileSet, ImageSplit
from jepa_lab.data.cache import ImageCache, cache_folder
from jepa_lab.data.image_files import CHANNELS, OnBadImage, file_pixels, image_data, load_files
from jepa_lab.data.images import HostPixels, LazyImages, PixelSource, to_memory, to_tensor
from jepa_lab.data.required import require_data, require_files
from jepa_lab.data.residency import Loading
from jepa_lab.data.survey import Survey, TrainingPart, fingerprint_of, survey_files, without_skipped
from jepa_lab.data.workers import Workers
from jepa_lab.errors import ConfigError, Key


@dataclass(frozen=True)
class Loaded:
    """A data set whose images can be used.

    Attributes:
        survey: what was found about files that stream; None where the images themselves tell it.
        notes: what the run's log should say.
        findings: about the folders of the files.
    """

    data: ImageData
    survey: Survey | None = None
    notes: tuple[str, ...] = ()
    findings: Findings = NOTHING_FOUND


def load_images(
    dataset: ImageDataset,
    loading: Loading,
    on_bad_image: OnBadImage,
    cache: bool,
    known: Survey | None,
    training_part: TrainingPart | None,
    side: int,
) -> Loaded:
    """Load a data set by the settings of the pipeline.

    Args:
        side: height and width that pictures of files are stored at, see `stored_side`; a data set that comes in one
            piece delivers its own.
        known: what an earlier look at the files found, used if they are still the same.
        training_part: see `survey_files`.
    Raises:
        DataError: missing or broken files. ConfigError: a cache for a data set without files.
        RunStopped: a full disk, or a dead worker.
    """
    check_cache(cache, dataset)
    files = dataset.image_files()
    if files is None:
        data = dataset.load()
        require_data(dataset, data)
        return Loaded(_in_one_piece(data, loading))
    require_files(dataset, files)
    bytes_an_image = CHANNELS * side**2
    num_images = sum(len(part.files) for part in files.parts())
    resident = loading.keeps_resident(len(files.train.files) * bytes_an_image, num_images * bytes_an_image)
    if cache:
        entry = ImageCache(cache_folder(), dataset.describe(), files, side, loading.workers, on_bad_image)
        loaded = _from_cache(entry, loading.workers, resident)
    elif resident:
        loaded = Loaded(load_files(files, side, on_bad_image))
    else:
        loaded = _from_files(files, side, loading.workers, on_bad_image, known, training_part)
    skipped = tuple(f"left out (on_bad_image=skip): {image.problem}" for image in loaded.data.skipped)
    return replace(loaded, notes=loaded.notes + skipped, findings=files.findings)


def check_cache(cache: bool, dataset: ImageDataset) -> None:
    """Only decoding is worth a cache.

    Raises:
        ConfigError: a cache was asked for where there are no files to decode.
    """
    if cache and dataset.image_files() is None:
        raise ConfigError(
            Key("cache"),
            f"=true is for data sets of image files, and {type(dataset).__name__} comes in one piece, with nothing to "
            "decode; set ",
            Key("cache"),
            "=false",
            keys=["dataset"],
        )


def _in_one_piece(data: ImageData, loading: Loading) -> ImageData:
    """Images that came into host memory in any case."""
    if loading.keeps_resident(math.prod(data.train.images.shape), host_bytes=0):
        return data
    train = _streamed_from_memory(data.train, loading.workers)
    test = None if data.test is None else _streamed_from_memory(data.test, loading.workers)
    validation = None if data.validation is None else _streamed_from_memory(data.validation, loading.workers)
    return replace(data, train=train, test=test, validation=validation)


def _streamed_from_memory(split: ImageSplit, workers: Workers) -> ImageSplit:
    # There is nothing to decode: a worker would only copy the images once more.
    images = to_tensor(split.images)
    return replace(split, images=LazyImages(HostPixels(images), replace(workers, count=0), torch.arange(len(images))))


def _from_cache(cache: ImageCache, workers: Workers, resident: bool) -> Loaded:
    cached = cache.open()
    notes = () if cached.note is None else (cached.note,)
    images = _lazy(cached.pixels, Workers(0) if resident else workers)
    data = image_data(cached.files, to_memory(images) if resident else images, cached.digest, cached.skipped)
    return Loaded(data, None, notes)


def _from_files(
    files: ImageFileSet,
    side: int,
    workers: Workers,
    on_bad_image: OnBadImage,
    known: Survey | None,
    training_part: TrainingPart | None,
) -> Loaded:
    survey = known
    if survey is None or survey.fingerprint != fingerprint_of(files, side):
        survey = survey_files(files, side, workers, on_bad_image, training_part)
    files = without_skipped(files, survey.skipped)
    images = _lazy(file_pixels(files, side), workers)
    return Loaded(image_data(files, images, survey.digest, survey.skipped), survey)


def _lazy(source: PixelSource, workers: Workers) -> LazyImages:
    return LazyImages(source, workers, torch.arange(source.shape[0]))
