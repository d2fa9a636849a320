"""Rules that span sections of a pipeline, checked before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.config.memory import MAX_PATCHES, device_memory_bytes, in_words, memory_needs
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.contracts import require
from jepa_lab.data.augmentations.base import AUGMENTATIONS
from jepa_lab.data.base import DATASETS
from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.errors import ConfigError, Problem
from jepa_lab.grid import Grid
from jepa_lab.losses.base import LOSSES
from jepa_lab.maskers.base import MASKERS, Masker, require_masks, require_patches_of_grid
from jepa_lab.maskers.batching import union_of_targets
from jepa_lab.models.level_masks import level_grids, level_masks
from jepa_lab.models.sizes import ENCODER_SIZES, PREDICTOR_SIZES, ModelSize, require_size
from jepa_lab.monitors.base import MONITORS, ChosenMonitor, require_readings
from jepa_lab.positions.base import POSITIONS, PositionInputs, PositionsOfEncoder
from jepa_lab.probes.base import PROBES, require_keys
from jepa_lab.registry import ComponentParams, Registry
from jepa_lab.regularizers.base import REGULARIZERS, ImagesAtOnce
from jepa_lab.targets.base import TARGETS, TargetInputs, require_num_features
from jepa_lab.tracking.base import TRACKERS
from jepa_lab.training.devices import only_elsewhere, resolve_compute
from jepa_lab.training.ema.base import EMA_SCHEDULES, require_momentum

_DRAWN_FOR_LEVELS = 64


@dataclass(frozen=True)
class Geometry:
    """What follows from a pipeline's numbers: the patch grid and the sizes of the networks."""

    grid: Grid
    encoder: ModelSize
    predictor: ModelSize


def check_pipeline(loaded: LoadedPipeline, *, elsewhere: bool = False) -> Geometry:
    """Check image and patch size, heads, positions, channels, warm-up, device, memory and masks.

    Args:
        elsewhere: whether it may be meant for a machine with another device, whose memory is then not checked.
    Raises:
        ConfigError: naming place, values, rule and remedy.
        DeviceError: the device, precision or compiler that is asked for is not on this machine.
    """
    pipeline = loaded.pipeline
    check_component(loaded, "encoder.size", ENCODER_SIZES, pipeline.encoder.size, None)
    check_component(loaded, "predictor.size", PREDICTOR_SIZES, pipeline.predictor.size, None)
    geometry = pipeline_geometry(pipeline)
    if pipeline.data.image_size % pipeline.encoder.patch_size:
        near = max(1, pipeline.data.image_size // pipeline.encoder.patch_size) * pipeline.encoder.patch_size
        raise loaded.error(
            "data.image_size",
            f"data.image_size must be a multiple of encoder.patch_size, got {pipeline.data.image_size} and "
            f"{pipeline.encoder.patch_size}; use {near}, or another patch size",
            "encoder.patch_size",
        )
    encoder_keys: tuple[str, ...] = ("encoder.size.embed_dim", "encoder.size.num_heads")
    predictor_keys: tuple[str, ...] = ("predictor.size.embed_dim", "predictor.size.num_heads")
    if "embed_dim" not in type(pipeline.predictor.size).model_fields:  # it may be relative to the encoder's
        predictor_keys += encoder_keys
    _check_network(loaded, "encoder", geometry.encoder, [geometry.grid], encoder_keys)
    of_levels = level_grids(geometry.grid, pipeline.hierarchy.num_levels)
    _check_network(loaded, "predictor", geometry.predictor, of_levels, predictor_keys)
    _check_other_components(loaded, geometry)
    _check_target(loaded, geometry)
    _check_loss(loaded, geometry)
    _check_hierarchy(loaded, geometry)
    check_regularizer(loaded)
    _check_drop_path(loaded, geometry.encoder)
    _check_channels(loaded)
    _check_warmup(loaded)
    _check_probe(loaded, geometry.encoder)
    _check_probe_size(loaded)
    _check_patches(loaded, geometry.grid)
    with loaded.located("training"):
        missing = only_elsewhere(pipeline.training) if elsewhere else None
        device = None if missing else resolve_compute(pipeline.training).device
    if device is not None:
        _check_memory(loaded, geometry, device)
    grid_keys = ("data.image_size", "encoder.patch_size")
    check_component(loaded, "masker", MASKERS, pipeline.masker, geometry.grid, *grid_keys)
    with loaded.located("masker", *grid_keys):
        masker = build_masker(pipeline, geometry.grid)
    _check_levels(loaded, masker)
    return geometry


def pipeline_geometry(pipeline: Pipeline) -> Geometry:
    """Grid and sizes of a pipeline."""
    side = pipeline.data.image_size // pipeline.encoder.patch_size
    encoder_size = ENCODER_SIZES.entry_of(pipeline.encoder.size).component(pipeline.encoder.size)
    encoder = encoder_size.resolve()
    require_size(encoder_size, encoder)
    predictor_size = PREDICTOR_SIZES.entry_of(pipeline.predictor.size).component(pipeline.predictor.size)
    predictor = predictor_size.resolve(encoder)
    require_size(predictor_size, predictor)
    return Geometry(Grid(side, side), encoder, predictor)


def build_masker(pipeline: Pipeline, grid: Grid) -> Masker:
    """The pipeline's masker on this grid.

    Raises:
        ConfigError: no draw can satisfy its settings, or it leaves no context or no target.
    """
    masker = MASKERS.entry_of(pipeline.masker).component(pipeline.masker, grid)
    masks = masker.sample(2, torch.Generator().manual_seed(0))
    require_masks(masker, masks, 2, torch.device("cpu"))
    require_patches_of_grid(masker, masks)
    for name, counts in (("context", masks.context.counts()), ("target", masks.target.counts())):
        if counts.numel() == 0 or counts.min() == 0:
            raise ConfigError(  # with no key: it is about the masker as a whole
                f"masker {pipeline.masker.name!r} leaves no {name} patch on a grid of {grid} patches; "  # type: ignore[attr-defined]
                "change its settings, or the grid (data.image_size / encoder.patch_size)"
            )
    return masker


def check_component(
    loaded: LoadedPipeline, section: str, family: Registry[Any], params: ComponentParams, known: object, *also: str
) -> None:
    """Ask a component of any family whether its parameters fit what the run knows.

    Args:
        section: dotted key at which the component is chosen.
        known: see the base class of the family.
        also: keys elsewhere that `known` follows from.
    """
    component = family.entry_of(params).component
    found = component.check(params, known)
    require(component, "check", found is None or isinstance(found, str | Problem), found, "a Problem, a str or None")
    _refuse(loaded, section, found, *also)


def _check_other_components(loaded: LoadedPipeline, geometry: Geometry) -> None:
    """Those that need nothing but what the pipeline says."""
    pipeline = loaded.pipeline
    sources = {"data": pipeline.data} | ({} if pipeline.probe.data is None else {"probe.data": pipeline.probe.data})
    for section, source in sources.items():
        root = None if source.root is None else Path(source.root)
        check_component(loaded, f"{section}.dataset", DATASETS, source.dataset, root, f"{section}.root")
    size, width = pipeline.data.image_size, geometry.encoder.embed_dim
    check_component(loaded, "augmentation", AUGMENTATIONS, pipeline.augmentation, size, "data.image_size")
    downsampling = pipeline.hierarchy.downsampling
    check_component(loaded, "hierarchy.downsampling", DOWNSAMPLINGS, downsampling, width, "encoder.size")
    check_component(loaded, "ema_momentum", EMA_SCHEDULES, pipeline.ema_momentum, None)
    require_momentum(EMA_SCHEDULES.entry_of(pipeline.ema_momentum).component(pipeline.ema_momentum))
    check_component(loaded, "tracking", TRACKERS, pipeline.tracking, None)
    for key in ("probe_epochs", "end"):
        for number, params in enumerate(getattr(pipeline.monitors, key)):
            check_component(loaded, f"monitors.{key}.{number}", MONITORS, params, None)
            entry = MONITORS.entry_of(params)
            require_readings(ChosenMonitor(entry.name, entry.component(params)))


def _refuse(loaded: LoadedPipeline, section: str, found: Problem | str | None, *also: str) -> None:
    """Raise what a check has found, as one about the section."""
    if found is None:
        return
    problem = Problem(found) if isinstance(found, str) else found
    keys = [key.within(section) for key in problem.keys] or [section]
    raise loaded.error(keys[0], problem.of(section), *keys[1:], *also)


def _check_network(
    loaded: LoadedPipeline, section: str, size: ModelSize, grids: list[Grid], size_keys: tuple[str, ...]
) -> None:
    """Check the size of a network, and its positions on each grid that it is built for, the patches first."""
    _refuse(loaded, f"{section}.size", size.check(), *size_keys)
    position, of_encoder, keys = getattr(loaded.pipeline, section).position, None, size_keys
    if section == "predictor":
        entry = POSITIONS.entry_of(loaded.pipeline.encoder.position)
        of_encoder = PositionsOfEncoder(entry.name, entry.component, grids[0])
        keys = (*size_keys, "encoder.position", "hierarchy.num_levels")
    for grid in grids:
        inputs = PositionInputs(grid, size.embed_dim, size.num_heads, of_encoder)
        check_component(loaded, f"{section}.position", POSITIONS, position, inputs, *keys)


def _check_drop_path(loaded: LoadedPipeline, encoder: ModelSize) -> None:
    rate = loaded.pipeline.encoder.drop_path_rate
    if rate > 0 and encoder.depth < 2:
        raise loaded.error(
            "encoder.drop_path_rate",
            f"encoder.drop_path_rate={rate:g} needs an encoder of at least 2 blocks, as it rises from 0 at the first "
            f"one, and this encoder has {encoder.depth}; use 0, or a deeper encoder.size",
            "encoder.size.depth",
        )


def target_inputs(pipeline: Pipeline, geometry: Geometry, num_channels: int) -> TargetInputs:
    """What the pipeline's target is computed from."""
    return TargetInputs(geometry.encoder.embed_dim, geometry.encoder.depth, pipeline.encoder.patch_size, num_channels)


def _check_target(loaded: LoadedPipeline, geometry: Geometry) -> None:
    pipeline = loaded.pipeline
    num_channels = DATASETS.entry_of(pipeline.data.dataset).component.num_channels
    inputs = target_inputs(pipeline, geometry, num_channels)
    check_component(loaded, "target", TARGETS, pipeline.target, inputs, "encoder.patch_size", "encoder.size")


def _check_loss(loaded: LoadedPipeline, geometry: Geometry) -> None:
    pipeline = loaded.pipeline
    num_channels = DATASETS.entry_of(pipeline.data.dataset).component.num_channels
    with torch.device("meta"):  # for its number of features alone
        target = TARGETS.entry_of(pipeline.target).component(
            pipeline.target, target_inputs(pipeline, geometry, num_channels)
        )
    require_num_features(target)
    of_target = [f"target.{key}" for key in type(pipeline.target).model_fields]
    check_component(loaded, "loss", LOSSES, pipeline.loss, target.num_features, "target", *of_target)


def _check_hierarchy(loaded: LoadedPipeline, geometry: Geometry) -> None:
    pipeline, num_levels = loaded.pipeline, loaded.pipeline.hierarchy.num_levels
    if num_levels == 1:
        return
    coarsest = level_grids(geometry.grid, num_levels)[-1]
    if min(coarsest.height, coarsest.width) < 2:
        raise loaded.error(
            "hierarchy.num_levels",
            f"hierarchy.num_levels={num_levels} makes the coarsest level {coarsest} cells of the {geometry.grid} grid, "
            "and at least 2x2 are needed to predict one from another; lower it, or use a smaller encoder.patch_size",
            "data.image_size",
            "encoder.patch_size",
        )
    found = TARGETS.entry_of(pipeline.target).component.check_levels(pipeline.target)
    if found is not None:
        name = pipeline.target.name  # type: ignore[attr-defined]
        problem = Problem(found) if isinstance(found, str) else found
        raise loaded.error(
            "target",
            f"target {name!r} cannot be predicted at hierarchy.num_levels={num_levels} levels: "
            f"{problem.text('target')}",
            *(key.within("target") for key in problem.keys),
            "hierarchy.num_levels",
        )


def _check_levels(loaded: LoadedPipeline, masker: Masker) -> None:
    """Each level must have something to predict."""
    hierarchy = loaded.pipeline.hierarchy
    if hierarchy.num_levels == 1:
        return
    masks = masker.sample(_DRAWN_FOR_LEVELS, torch.Generator().manual_seed(0))
    if loaded.pipeline.predictor.target_sequences == "joint":
        masks = union_of_targets(masks, masker.grid.num_patches)
    grids = level_grids(masker.grid, hierarchy.num_levels)
    of_levels = level_masks(masks, grids, hierarchy.count_targets_on)
    for level, (of_level, grid) in enumerate(zip(of_levels, grids, strict=True), start=1):
        if not of_level.target.counts().any():
            half = {"patches": "the patches in a cell", "level_below": "a cell's finer ones"}
            raise loaded.error(
                "hierarchy.num_levels",
                f"hierarchy.num_levels={hierarchy.num_levels}: none of the {grid} cells of level {level} was a target "
                f"in {_DRAWN_FOR_LEVELS} draws, because at least half of {half[hierarchy.count_targets_on]} must be; "
                "enlarge the masker's targets, or lower hierarchy.num_levels",
                "hierarchy.count_targets_on",
                "masker",
            )


def check_regularizer(loaded: LoadedPipeline, processes: int = 1) -> None:
    """Refuse statistics of too few images.

    Args:
        processes: that divide a batch.
    Raises:
        ConfigError: with the numbers.
    """
    pipeline, training = loaded.pipeline, loaded.pipeline.training
    at_once = ImagesAtOnce(training.batch_size, training.accumulation_steps, processes)
    keys = ("training.batch_size", "training.accumulation_steps")
    check_component(loaded, "regularizer", REGULARIZERS, pipeline.regularizer, at_once, *keys)


def _check_channels(loaded: LoadedPipeline) -> None:
    data = loaded.pipeline.data
    if data.channel_mean is None or data.channel_std is None:
        return
    num_channels = DATASETS.entry_of(data.dataset).component.num_channels
    if not len(data.channel_mean) == len(data.channel_std) == num_channels:
        raise loaded.error(
            "data.channel_mean",
            f"data.channel_mean and data.channel_std must have a number for each of the {num_channels} channel(s) of "
            f"data.dataset, got {len(data.channel_mean)} and {len(data.channel_std)}; give that many, or null for "
            "both to compute them",
            "data.channel_std",
            "data.dataset",
        )


def _check_probe(loaded: LoadedPipeline, encoder: ModelSize) -> None:
    for params in (loaded.pipeline.probe.method, *loaded.pipeline.probe.additional):
        require_keys(PROBES.entry_of(params).component(params), encoder.depth)
    num_layers = loaded.pipeline.probe.num_layers
    if num_layers > encoder.depth:
        raise loaded.error(
            "probe.layers",
            f"probe.layers={loaded.pipeline.probe.layers!r} needs an encoder of {num_layers} blocks, this one has "
            f"{encoder.depth}; use probe.layers=last",
            "encoder.size.depth",
        )
    levels, num_levels = loaded.pipeline.probe.levels, loaded.pipeline.hierarchy.num_levels
    if levels is not None and (num_levels == 1 or max(levels) > num_levels):
        remedy = "use null, which reads the encoder alone" if num_levels == 1 else f"use at most {num_levels}"
        raise loaded.error(
            "probe.levels",
            f"probe.levels={list(levels)} reads levels of a hierarchy, and hierarchy.num_levels is {num_levels}; "
            f"{remedy}",
            "hierarchy.num_levels",
        )


def _check_probe_size(loaded: LoadedPipeline) -> None:
    image_size, patch_size = loaded.pipeline.probe.image_size, loaded.pipeline.encoder.patch_size
    if image_size is None:
        return
    if image_size % patch_size:
        raise loaded.error(
            "probe.image_size",
            f"probe.image_size must be a multiple of encoder.patch_size, got {image_size} and {patch_size}; "
            f"use {max(1, image_size // patch_size) * patch_size}",
            "encoder.patch_size",
        )
    side = image_size // patch_size
    if side**2 > MAX_PATCHES:
        raise loaded.error(
            "probe.image_size",
            f"probe.image_size / encoder.patch_size gives {side}x{side} = {side**2:,} patches per image, and at most "
            f"{MAX_PATCHES:,} are possible; lower probe.image_size",
            "encoder.patch_size",
        )


def _check_warmup(loaded: LoadedPipeline) -> None:
    epochs = loaded.pipeline.training.epochs
    warmup = loaded.pipeline.optimizer.warmup(epochs)
    if warmup > epochs:
        raise loaded.error(
            "optimizer.warmup_epochs",
            f"optimizer.warmup_epochs must be at most training.epochs, got {warmup:g} and {epochs}; "
            "shorten it, or give optimizer.warmup_fraction, which follows the epochs",
            "training.epochs",
        )


def _check_patches(loaded: LoadedPipeline, grid: Grid) -> None:
    if grid.num_patches > MAX_PATCHES:
        raise loaded.error(
            "data.image_size",
            f"data.image_size / encoder.patch_size gives {grid} = {grid.num_patches:,} patches per image, and at most "
            f"{MAX_PATCHES:,} are possible; lower data.image_size, or raise encoder.patch_size",
            "encoder.patch_size",
        )


def _check_memory(loaded: LoadedPipeline, geometry: Geometry, device: torch.device) -> None:
    """Refuse what cannot fit, before it is built; see `memory_needs`."""
    needs = memory_needs(loaded.pipeline, geometry.grid, geometry.encoder, geometry.predictor)
    available = device_memory_bytes(device)
    if sum(need.num_bytes for need in needs) <= available:
        return
    largest = max(needs, key=lambda need: need.num_bytes)
    raise loaded.error(
        largest.keys[0],
        f"training needs at least {in_words(largest.num_bytes)} of memory for {largest.what}, and {device.type} has "
        f"{in_words(available)}; {largest.remedy}",
        *largest.keys[1:],
    )
