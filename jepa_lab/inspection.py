"""What `jepa-lab check` tells about a pipeline without training it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console

from jepa_lab.arithmetic import Arithmetic, Layout, count_arithmetic, layout_of
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
from jepa_lab.grid import Grid
from jepa_lab.maskers.statistics import MaskStatistics, PatchCounts, mask_statistics, sampled_batches
from jepa_lab.models.level_masks import level_grids, level_masks, visible_target_shares
from jepa_lab.tables.terminal import print_listing
from jepa_lab.training.devices import memory_errors, only_elsewhere


@dataclass(frozen=True)
class LevelTargets:
    """What is predicted at a level above the patches.

    Attributes:
        cells: mean number of target cells of a block. visible: mean share of a target cell that is context.
    """

    grid: Grid
    cells: float
    visible: float


@dataclass(frozen=True)
class Inspection:
    """Numbers that follow from a pipeline.

    Attributes:
        arithmetic: operations of a training step, for the layout of tokens on the run's device.
        levels: those above the patches.
        images: of each split.
        notes: what is to be known about folders and splits, and about a device that is not here.
        stored_side: height and width in pixels that pictures are stored at. stored_bytes: of the training images.
    """

    encoder_parameters: int
    predictor_parameters: int
    arithmetic: Arithmetic
    layout: Layout
    images: SplitCounts
    notes: tuple[str, ...]
    stored_side: int
    stored_bytes: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    masks: MaskStatistics
    levels: tuple[LevelTargets, ...]


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
    total_steps = pipeline.training.epochs * steps_per_epoch
    layout = layout_of(pipeline, model, total_steps)
    return Inspection(
        encoder_parameters=sum(p.numel() for p in model.encoder_parameters()),
        predictor_parameters=sum(p.numel() for p in model.predictor_parameters()),
        arithmetic=count_arithmetic(pipeline, model, layout),
        layout=layout,
        images=images,
        notes=(*notes, *_notes_on_device(pipeline)),
        stored_side=side,
        stored_bytes=images.training * dataset.num_channels * side**2,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=schedules.warmup_steps,
        masks=masks,
        levels=_level_targets(pipeline),
    )


def _notes_on_device(pipeline: Pipeline) -> list[str]:
    missing = only_elsewhere(pipeline.training)
    return [] if missing is None else [f"{missing}; operations are counted as they would be there"]


def sample_statistics(pipeline: Pipeline) -> MaskStatistics:
    """The pipeline's masks over a few of its batches."""
    sampler, batch_size = build_sampler(pipeline), pipeline.training.batch_size
    return mask_statistics(
        sampler.masker,
        sampler.batching,
        batch_size=batch_size,
        num_batches=sampled_batches(batch_size),
        seed=pipeline.seed,
    )


def _level_targets(pipeline: Pipeline) -> tuple[LevelTargets, ...]:
    """What the levels above the patches predict, measured on one of the pipeline's batches."""
    grids = level_grids(pipeline_geometry(pipeline).grid, pipeline.hierarchy.num_levels)
    if len(grids) == 1:
        return ()
    generator = torch.Generator().manual_seed(pipeline.seed)
    masks = build_sampler(pipeline).sample(pipeline.training.batch_size, generator)
    of_levels = level_masks(masks, grids, pipeline.hierarchy.count_targets_on)
    shares = visible_target_shares(of_levels, grids).tolist()
    counts = [float(each.target.counts().double().mean()) for each in of_levels]
    return tuple(map(LevelTargets, grids[1:], counts[1:], shares[1:]))


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


def inspection_as_json(inspection: Inspection) -> dict[str, Any]:
    """The numbers as JSON values."""
    masks = inspection.masks
    counts = {"drawn_context": masks.drawn_context, "context": masks.context, "target_per_block": masks.target}
    return {
        "encoder_parameters": inspection.encoder_parameters,
        "predictor_parameters": inspection.predictor_parameters,
        "flops_per_image": inspection.arithmetic.useful,
        "computed_to_useful_flops": inspection.arithmetic.ratio,
        "images": {**asdict(inspection.images), "in_words": inspection.images.sentence()},
        "stored_side": inspection.stored_side,
        "stored_bytes": inspection.stored_bytes,
        "steps_per_epoch": inspection.steps_per_epoch,
        "total_steps": inspection.total_steps,
        "warmup_steps": inspection.warmup_steps,
        "patches": {name: asdict(each) for name, each in counts.items()},
        "targets_per_image": masks.target_union_mean,
        "never_used": masks.never_used,
        "notes": list(inspection.notes),
    }


def print_inspection(inspection: Inspection, geometry: Geometry) -> None:
    """Print the numbers for people."""
    masks = inspection.masks

    def patches(counts: PatchCounts) -> str:
        return f"mean {counts.mean:.1f}, minimum {counts.minimum}, maximum {counts.maximum}"

    rows = {
        "patch grid": f"{geometry.grid} = {geometry.grid.num_patches} patches",
        "encoder": f"{geometry.encoder} (width x depth x heads), {inspection.encoder_parameters:,} parameters",
        "predictor": f"{geometry.predictor}, {inspection.predictor_parameters:,} parameters",
        "FLOPs per image": f"{inspection.arithmetic.useful / 1e9:.3f} GFLOP (a training step, without padding)",
        "computed / useful FLOPs": f"{inspection.arithmetic.ratio:.2f} ({inspection.layout.words}, unread ones "
        "dropped)",
        "images": inspection.images.sentence(),
        "stored images": f"{inspection.stored_side} x {inspection.stored_side} pixels (data.resize), "
        f"{in_words(inspection.stored_bytes)} for training",
        "steps": f"{inspection.total_steps:,} ({inspection.steps_per_epoch:,} per epoch), "
        f"warm-up {inspection.warmup_steps:,}",
        "context patches drawn": patches(masks.drawn_context),
        "context patches seen": patches(masks.context),
        "target patches per block": patches(masks.target),
        "target patches per image": f"mean {masks.target_union_mean:.1f}",
        **{
            f"level {number}": f"{level.grid} cells, mean {level.cells:.1f} targets per block, of which "
            f"{level.visible:.1%} is visible"
            for number, level in enumerate(inspection.levels, start=2)
        },
        "patches never used": f"{masks.never_used:.1%} of the grid (over {masks.num_images:,} images)",
    }
    console = Console(highlight=False)
    print_listing(rows, console)
    for note in inspection.notes:
        console.print(f"note: {printable(note)}", markup=False)
