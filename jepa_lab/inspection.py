"""What `jepa-lab check` tells about a pipeline without training it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rich.console import Console

from jepa_lab.build import build_dataset, build_model, build_sampler, build_schedules, division_plan
from jepa_lab.config.checks import Geometry, pipeline_geometry
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.config.memory import check_images_fit, in_words
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.base import ImageDataset
from jepa_lab.data.division import DivisionPlan, SplitCounts, divide, notes_on, numbered
from jepa_lab.data.loading import check_cache
from jepa_lab.data.required import require_counts
from jepa_lab.data.stored_side import stored_side
from jepa_lab.errors import Key, keys_within, printable
from jepa_lab.maskers.sampling import MaskSampler
from jepa_lab.maskers.statistics import MaskStatistics, PatchCounts, mask_statistics
from jepa_lab.models.flops import predictor_flops, step_flops
from jepa_lab.models.levels import Levels
from jepa_lab.tables.terminal import print_listing
from jepa_lab.training.devices import memory_errors

_SAMPLED_BATCHES = 8
_SAMPLED_IMAGES = 1 << 14
"""Large batches need fewer to say as much; `subset` and `prefix` depend on the size of a batch, so it stays."""


@dataclass(frozen=True)
class Inspection:
    """Numbers that follow from a pipeline.

    Attributes:
        flops_per_image: of a training step, at the average number of patches.
        images: of each split.
        notes: what is to be known about folders and splits.
        stored_side: height and width in pixels that pictures are stored at. stored_bytes: of the training images.
    """

    encoder_parameters: int
    predictor_parameters: int
    flops_per_image: float
    images: SplitCounts
    notes: tuple[str, ...]
    stored_side: int
    stored_bytes: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    masks: MaskStatistics


def inspect_pipeline(loaded: LoadedPipeline) -> Inspection:
    """Count parameters, operations, steps and patches.

    Raises:
        DataError: the data set's files are missing.
        ConfigError: the batch is larger than the data set. RunStopped: out of memory.
    """
    with memory_errors(loaded.pipeline.training):
        return _inspect(loaded)


def _inspect(loaded: LoadedPipeline) -> Inspection:
    pipeline = loaded.pipeline
    with loaded.located("data"), keys_within("data", "dataset", "root"):
        image_size, resize = pipeline.data.image_size, pipeline.data.resize
        dataset = build_dataset(pipeline.data, image_size if resize is None else resize)
        check_cache(pipeline.data.cache, dataset)
        check_images_fit(dataset, Key("image_size" if resize is None else "resize"))
        side = stored_side(dataset.image_files(), image_size, resize)
        images, notes = _images(pipeline, dataset)
    steps_per_epoch = _steps_per_epoch(loaded, images.training)
    with torch.device("meta"):  # counted, not filled: the largest encoder would take half a minute
        model = build_model(pipeline, dataset.num_channels)
    masks = sample_statistics(pipeline)
    schedules = build_schedules(pipeline, steps_per_epoch)
    return Inspection(
        encoder_parameters=sum(p.numel() for p in model.encoder_parameters()),
        predictor_parameters=sum(p.numel() for p in model.predictor_parameters()),
        flops_per_image=flops_per_image(pipeline, dataset.num_channels, masks),
        images=images,
        notes=notes,
        stored_side=side,
        stored_bytes=images.training * dataset.num_channels * side**2,
        steps_per_epoch=steps_per_epoch,
        total_steps=pipeline.training.epochs * steps_per_epoch,
        warmup_steps=schedules.warmup_steps,
        masks=masks,
    )


def sample_statistics(pipeline: Pipeline) -> MaskStatistics:
    """The pipeline's masks over a few of its batches."""
    sampler, batch_size = build_sampler(pipeline), pipeline.training.batch_size
    return mask_statistics(
        sampler.masker,
        sampler.batching,
        batch_size=batch_size,
        num_batches=max(1, min(_SAMPLED_BATCHES, _SAMPLED_IMAGES // batch_size)),
        seed=pipeline.seed,
    )


def flops_per_image(pipeline: Pipeline, num_channels: int, masks: MaskStatistics) -> float:
    """Operations of a training step for one image, at the average number of patches, without padding."""
    geometry, sampler = pipeline_geometry(pipeline), build_sampler(pipeline)
    joint = sampler.joint_targets
    num_blocks = 1 if joint else sampler.masker.num_target_blocks
    block_patches = masks.target_union_mean if joint else masks.target.mean
    with torch.device("meta"):
        model = build_model(pipeline, num_channels)
    target = model.target
    at_patches = step_flops(
        geometry.encoder,
        geometry.predictor,
        num_channels * pipeline.encoder.patch_size**2,
        geometry.grid.num_patches,
        masks.context.mean,
        block_patches,
        sampler.masker.num_context_views,
        num_blocks,
        target.encoder_sequences(geometry.grid.num_patches, num_blocks, block_patches),
        target.num_features,
    )
    return at_patches + _flops_above(model.hierarchy, sampler, pipeline)


def _flops_above(levels: Levels, sampler: MaskSampler, pipeline: Pipeline) -> float:
    """Operations of a step for one image at the levels above the patches, at the average number of cells."""
    geometry = pipeline_geometry(pipeline)
    width = geometry.encoder.embed_dim
    drawn = sampler.sample(pipeline.training.batch_size, torch.Generator().manual_seed(pipeline.seed))
    total = 0.0
    for masks, cells in zip(levels.masks(drawn)[1:], levels.flops_above(), strict=True):
        views, blocks = masks.context.shape[1], masks.target.shape[1]
        context, target = (float(counts.float().mean()) for counts in (masks.context.counts(), masks.target.counts()))
        forward = predictor_flops(geometry.predictor, width, width, context, target, views, blocks)
        total += cells + 3 * (forward + views * cells)  # the target side goes forward alone
    return total


def _images(pipeline: Pipeline, dataset: ImageDataset) -> tuple[SplitCounts, tuple[str, ...]]:
    """How many images each split has, and what is to be known about them; files are divided without being decoded."""
    plan = division_plan(pipeline.data, pipeline.data)
    files, names = dataset.image_files(), numbered(dataset)
    if files is None or names is None:
        return _images_in_one_piece(plan, dataset), ()
    division = divide(names, plan)
    notes = (*files.findings.notes, *notes_on(division, plan, files.class_names))
    return SplitCounts.of(*division.splits), tuple(note.text("data") for note in notes)


def _images_in_one_piece(plan: DivisionPlan, dataset: ImageDataset) -> SplitCounts:
    """The same by number alone."""
    train, test = dataset.num_train_images(), dataset.num_test_images()
    require_counts(dataset, train, test)
    if test is None and plan.test_fraction > 0 and dataset.has_labels():
        test = round(train * plan.test_fraction)
        train -= test
    if plan.max_images is not None:
        train, test = min(train, plan.max_images), None if test is None else min(test, plan.max_images)
    validation = round(train * plan.validation_fraction)
    return SplitCounts(train - validation, validation, test)


def _steps_per_epoch(loaded: LoadedPipeline, num_train: int) -> int:
    batch_size = loaded.pipeline.training.batch_size
    if num_train < batch_size:
        raise loaded.error(
            "training.batch_size",
            "training.batch_size must be at most the number of training images, got "
            f"{batch_size} and {num_train} (after the validation split); lower it",
        )
    return num_train // batch_size


def print_inspection(inspection: Inspection, geometry: Geometry) -> None:
    """Print the numbers for people."""
    masks = inspection.masks

    def patches(counts: PatchCounts) -> str:
        return f"mean {counts.mean:.1f}, minimum {counts.minimum}, maximum {counts.maximum}"

    rows = {
        "patch grid": f"{geometry.grid} = {geometry.grid.num_patches} patches",
        "encoder": f"{geometry.encoder} (width x depth x heads), {inspection.encoder_parameters:,} parameters",
        "predictor": f"{geometry.predictor}, {inspection.predictor_parameters:,} parameters",
        "FLOPs per image": f"{inspection.flops_per_image / 1e9:.3f} GFLOP (a training step, without padding)",
        "images": inspection.images.sentence(),
        "stored images": f"{inspection.stored_side} x {inspection.stored_side} pixels (data.resize), "
        f"{in_words(inspection.stored_bytes)} for training",
        "steps": f"{inspection.total_steps:,} ({inspection.steps_per_epoch:,} per epoch), "
        f"warm-up {inspection.warmup_steps:,}",
        "context patches drawn": patches(masks.drawn_context),
        "context patches seen": patches(masks.context),
        "target patches per block": patches(masks.target),
        "target patches per image": f"mean {masks.target_union_mean:.1f}",
        "patches never used": f"{masks.never_used:.1%} of the grid (over {masks.num_images:,} images)",
    }
    console = Console(highlight=False)
    print_listing(rows, console)
    for note in inspection.notes:
        console.print(f"note: {printable(note)}", markup=False)
