"""From a validated pipeline to the objects of a run: data, model, optimizer, schedules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from jepa_lab.config.checks import Geometry, build_masker, pipeline_geometry, target_inputs
from jepa_lab.config.memory import check_images_fit
from jepa_lab.config.pipeline import DataSettings, DataSource, Pipeline
from jepa_lab.data.augmentations.base import AUGMENTATIONS, Augmentation
from jepa_lab.data.base import (
    DATASETS,
    NOTHING_FOUND,
    Findings,
    FolderChoice,
    ImageDataset,
    ImageSplit,
    SkippedImage,
)
from jepa_lab.data.centre_squares import centre_squares, stored_pictures
from jepa_lab.data.division import Division, DivisionPlan, SplitCounts, divide, notes_on, numbered, numbers
from jepa_lab.data.images import HeldPictures, LazyImages, to_tensor
from jepa_lab.data.loading import Loaded, load_images
from jepa_lab.data.order import Batches
from jepa_lab.data.required import require_files
from jepa_lab.data.residency import Loading
from jepa_lab.data.resident import ResidentBatches, normalize, to_float
from jepa_lab.data.splits import channel_statistics, histogram_statistics
from jepa_lab.data.stored_side import stored_side
from jepa_lab.data.streaming import StreamingBatches
from jepa_lab.data.survey import Survey, TrainingPart
from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.errors import ConfigError, Key, keys_within
from jepa_lab.grid import Grid
from jepa_lab.losses.base import LOSSES
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.sampling import MaskSampler
from jepa_lab.models.drop_path import DropPath
from jepa_lab.models.hierarchy import Hierarchy, Pyramid
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.ladder import build_ladder, needed_rows
from jepa_lab.models.level_masks import level_grids
from jepa_lab.models.packing import FixedSizes, pad
from jepa_lab.models.predictor import Predictor, PredictorLevel
from jepa_lab.models.sequences import has_kernel_for_variable_lengths
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS, PositionEmbedding
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams
from jepa_lab.regularizers.base import REGULARIZERS
from jepa_lab.targets.base import TARGETS, Target
from jepa_lab.training.batch_maker import BatchMaker
from jepa_lab.training.capture import CapturedStep, CudaGraphs
from jepa_lab.training.compiling import compiled
from jepa_lab.training.devices import Compute
from jepa_lab.training.ema.base import EMA_SCHEDULES
from jepa_lab.training.finite import FiniteGate, StepSums
from jepa_lab.training.mask_source import DrawnAhead, DrawnNow, MaskSource
from jepa_lab.training.optimizer import build_optimizer
from jepa_lab.training.schedules import Schedules
from jepa_lab.training.step import TrainingStep, part_slices
from jepa_lab.training.step_numbers import StepNumbers
from jepa_lab.training.team import Alone, Team
from jepa_lab.training.timetable import Timetable
from jepa_lab.training.varying_sizes import VaryingSizes
from jepa_lab.training.whole_step import WholeStep

CPU = torch.device("cpu")
_FITTED_AT_ONCE = 256


@dataclass(frozen=True)
class PreparedData:
    """A data set, split; its images are the squares that an encoder is measured on.

    Random crops are taken from the whole pictures behind them (`stored_pictures`).

    Attributes:
        train: what pretraining sees; the probe trains on it too.
        validation: for every choice; never seen by pretraining.
        test: scored once; None where there is none.
        mean, std: [C] of the training pixels in [0, 1], or what the pipeline says.
        skipped: files that were left out.
        survey: what was found about files that stream, for the run folder.
        notes: what the run's log should say.
        findings: what the user should be told about folders and splits.
        section: of the pipeline, that chose the images.
    """

    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit | None
    class_names: tuple[str, ...]
    digest: str
    source: str
    mean: Tensor
    std: Tensor
    skipped: tuple[SkippedImage, ...] = ()
    survey: Survey | None = None
    notes: tuple[str, ...] = ()
    findings: Findings = NOTHING_FOUND
    section: str = "data"

    @property
    def counts(self) -> SplitCounts:
        """How many images each split has."""
        return SplitCounts.of(self.train, self.validation, self.test)

    @property
    def told(self) -> tuple[str, ...]:
        """The sentences of the findings."""
        return tuple(note.text(self.section) for note in self.findings.notes)


def build_dataset(source: DataSource, image_size: int) -> ImageDataset:
    """The data set of a section, ready to load.

    Args:
        image_size: that it delivers; see `stored_side` for pictures of files.
    Raises:
        ConfigError: the root begins with a home folder that does not exist, or the data set has no folders to
            understand in another way.
    """
    entry = DATASETS.entry_of(source.dataset)
    dataset = entry.component(source.dataset, None if source.root is None else _expanded(source.root), image_size)
    return dataset.with_folders(FolderChoice(source.labels, source.validation_split))


def _expanded(root: str) -> Path:
    try:
        return Path(root).expanduser()
    except RuntimeError:
        raise ConfigError(
            Key("root"),
            f" begins with a home folder that this system does not know, got {root!r}; write the whole path",
        ) from None


def build_loading(pipeline: Pipeline, device: torch.device, processes: int = 1) -> Loading:
    """How the images of a run on this device are held and read.

    Args:
        processes: of the run on this machine.
    """
    return Loading.of(pipeline.data.residency, pipeline.data.num_workers, device, processes)


def prepare_data(
    pipeline: Pipeline, device: torch.device = CPU, known: Survey | None = None, processes: int = 1
) -> PreparedData:
    """Load, limit and split the pipeline's data.

    Args:
        device: of the training.
        known: what the run found about its image files when it began, used if they are still the same.
        processes: of the run on this machine, which share its memory and its cores.
    Raises:
        DataError, ConfigError: see the data sets and the splits. RunStopped: a full disk, or a dead worker.
    """
    settings = pipeline.data
    given = settings.channel_mean is not None and settings.channel_std is not None
    plan, loading = division_plan(settings, settings), build_loading(pipeline, device, processes)
    with keys_within("data", "dataset", "root"):
        size = Key("image_size" if settings.resize is None else "resize")
        dataset = _stored_dataset(settings, settings.image_size, settings.resize, size)
        part = None if given else _training_part(dataset, plan)
        side = stored_side(dataset.image_files(), settings.image_size, settings.resize)
        loaded = load_images(dataset, loading, settings.on_bad_image, settings.cache, known, part, side)
        division, findings = _divided(loaded, plan)
    data, survey = loaded.data, loaded.survey
    if settings.channel_mean is not None and settings.channel_std is not None:
        mean, std = torch.tensor(settings.channel_mean), torch.tensor(settings.channel_std)
    elif survey is not None and survey.histogram is not None:
        mean, std = histogram_statistics(torch.tensor(survey.histogram))
    else:
        mean, std = channel_statistics(division.train.images)
    return PreparedData(
        *_squares(division.splits, settings.image_size, 1.0, device),
        data.class_names,
        data.digest,
        data.source,
        mean.float(),
        std.float(),
        data.skipped,
        survey,
        loaded.notes,
        findings,
    )


def prepare_probe_data(
    pipeline: Pipeline,
    data: PreparedData,
    device: torch.device = CPU,
    known: Survey | None = None,
    processes: int = 1,
) -> PreparedData:
    """The data that the probe is trained and scored on: `probe.data` where given, else the run's own.

    At `probe.image_size` where given, the part of each picture that `probe.crop_fraction` says. Channels are normalised
    as in pretraining.

    Args:
        device, known, processes: as for `prepare_data`.
    Raises:
        ConfigError: the images have another number of channels than the encoder takes.
        DataError, ConfigError, RunStopped: as for `prepare_data`.
    """
    source, image_size, fraction = pipeline.probe.data, probe_image_size(pipeline), pipeline.probe.crop_fraction
    if source is None and image_size == pipeline.data.image_size:
        if fraction == 1:
            return data
        parts = _squares((data.train, data.validation, data.test), image_size, fraction, device)
        return PreparedData(*parts, data.class_names, data.digest, data.source, data.mean, data.std)  # all else is told
    own = source is None
    source = pipeline.data if source is None else source
    size = Key("image_size", "data" if pipeline.probe.image_size is None else "probe")
    with keys_within("data" if own else "probe.data", "dataset", "root"):
        loading = build_loading(pipeline, device, processes)
        resize = _probed_resize(pipeline)
        dataset = _stored_dataset(source, image_size, resize, size)
        side = stored_side(dataset.image_files(), image_size, resize)
        loaded = load_images(dataset, loading, source.on_bad_image, source.cache, known, None, side)
        division, findings = _divided(loaded, division_plan(source, pipeline.data))
        parts = _squares(division.splits, image_size, fraction, device)
    found = loaded.data
    channels, expected = found.train.images.shape[1], data.train.images.shape[1]
    if channels != expected:
        raise ConfigError(
            Key("probe.data.dataset", ""),
            f"={source.dataset.name!r} has {channels} channel(s), the encoder takes {expected}; probe on data with as "  # type: ignore[attr-defined]
            "many channels",
        )
    prepared = PreparedData(*parts, found.class_names, found.digest, found.source, data.mean, data.std)
    prepared = replace(prepared, survey=loaded.survey, notes=loaded.notes)
    if own:  # told already
        return prepared
    return replace(prepared, skipped=found.skipped, findings=findings, section="probe.data")


def _probed_resize(pipeline: Pipeline) -> int | None:
    """`data.resize`, in the same proportion to the size that is probed at."""
    resize = pipeline.data.resize
    return None if resize is None else round(resize * probe_image_size(pipeline) / pipeline.data.image_size)


def _stored_dataset(source: DataSource, image_size: int, resize: int | None, size: Key) -> ImageDataset:
    """The data set, delivering what is stored where it comes in one piece, and known to fit.

    Args:
        size: the setting that the size of what is stored comes from.
    """
    dataset = build_dataset(source, image_size if resize is None else resize)
    check_images_fit(dataset, size)
    files = dataset.image_files()
    if files is not None:
        require_files(dataset, files)
    return dataset


def probe_image_size(pipeline: Pipeline) -> int:
    """Height and width of the images that are probed on, in pixels."""
    return pipeline.data.image_size if pipeline.probe.image_size is None else pipeline.probe.image_size


def surveys_of(data: PreparedData, probe_data: PreparedData) -> dict[str, Survey]:
    """What `save_surveys` keeps in the run folder."""
    sections = {"data": data} | ({} if probe_data is data else {"probe.data": probe_data})
    return {name: found.survey for name, found in sections.items() if found.survey is not None}


def build_batch_maker(
    pipeline: Pipeline,
    images: Batches,
    masks: MaskSource,
    mean: Tensor,
    std: Tensor,
    compute: Compute,
    team: Team,
) -> BatchMaker:
    """What makes the batches of a run out of its images, with the generators that its seed gives.

    Args:
        images: of `build_batches`. masks: of `build_mask_source`.
        mean: [C] of pixels in [0, 1]. std: [C].
    """
    device, seed, batch_size = compute.device, pipeline.seed, pipeline.training.batch_size
    return BatchMaker(
        order=images,
        augmentation=build_augmentation(pipeline),
        masks=masks,
        drop_path=build_drop_path(pipeline, device),
        mean=mean.to(device),
        std=std.to(device),
        augmentation_generator=build_generator(seed, "augmentation", device),
        batch_size=batch_size,
        rows=team.rows(batch_size),
    )


def build_mask_source(pipeline: Pipeline, model: IJepa, compute: Compute, team: Team) -> MaskSource:
    """What gives a run its masks, and lays their tokens out as suits the device.

    On a CPU nothing is padded; where the host must not wait for a device, buffers have fixed sizes.
    """
    sampler, batch_size, device = build_sampler(pipeline), pipeline.training.batch_size, compute.device
    generator, fixed = build_generator(pipeline.seed, "masks", device), compute.compile or compute.draws_ahead

    def sample(generator: torch.Generator) -> Masks:
        return sampler.sample(batch_size, generator, fixed_shapes=fixed)

    if not compute.draws_ahead:
        return DrawnNow(sample, generator, pad if fixed else model.packer_for(device))
    rows = team.rows(batch_size)
    levels, parts = model.hierarchy.masks, part_slices(batch_size // team.size, pipeline.training.accumulation_steps)
    ladder = build_ladder(lambda own: sample(own)[rows], levels, parts)
    has_kernel = has_kernel_for_variable_lengths(device, compute.precision, head_dims(pipeline))
    # Where nearly all batches have one size, a compiler does better to take it for a constant.
    packer = VaryingSizes if compute.compile and ladder.varies else FixedSizes
    packers = [packer(sizes, has_kernel) for sizes in ladder.rungs]
    return DrawnAhead(sample, generator, lambda masks: needed_rows(masks[rows], levels, parts), ladder, packers)


def head_dims(pipeline: Pipeline) -> list[int]:
    """Features of an attention head of the encoder and of the predictor."""
    geometry = pipeline_geometry(pipeline)
    return [size.embed_dim // size.num_heads for size in (geometry.encoder, geometry.predictor)]


def build_timetable(pipeline: Pipeline, steps_per_epoch: int) -> Timetable:
    """When a run is logged, saved and evaluated."""
    settings = pipeline.training
    return Timetable(
        settings.epochs,
        steps_per_epoch,
        pipeline.probe.every_epochs,
        settings.log_every_steps,
        settings.checkpoint_every_steps,
    )


def build_batches(pipeline: Pipeline, data: PreparedData, device: torch.device, team: Team) -> Batches:
    """This process's rows of the images of a run, in the order that its seed gives, wherever the images are.

    Raises:
        ConfigError: if there are fewer images than one batch.
    """
    images, batch_size = stored_pictures(data.train.images), pipeline.training.batch_size
    order, rows = build_generator(pipeline.seed, "order"), team.rows(batch_size)
    if isinstance(images, Tensor | HeldPictures):
        return ResidentBatches(images, batch_size, order, device, rows)
    assert isinstance(images, LazyImages), type(images)
    return StreamingBatches(images, batch_size, order, device, rows)


def _training_part(dataset: ImageDataset, plan: DivisionPlan) -> TrainingPart:
    """Which training images pretraining sees: the very code that divides them, on their numbers."""

    def indices(labels: Tensor | None, num_images: int) -> Tensor:
        names = numbered(dataset)
        assert names is not None, "only files are surveyed"
        left = replace(names, train=numbers(num_images, labels))  # without those that are skipped
        return to_tensor(divide(left, plan).train.images).flatten()

    return indices


def division_plan(source: DataSource, settings: DataSettings) -> DivisionPlan:
    """How the images of a source are divided: with the seed and the validation fraction of the run's own data."""
    test_seed = settings.split_seed if settings.test_split_seed is None else settings.test_split_seed
    fractions = (source.test_fraction, settings.validation_fraction)
    return DivisionPlan(*fractions, source.max_images, settings.split_seed, test_seed)


def _divided(loaded: Loaded, plan: DivisionPlan) -> tuple[Division, Findings]:
    """The splits, and what is to be told about them."""
    division = divide(loaded.data, plan)
    notes = (*loaded.findings.notes, *notes_on(division, plan, loaded.data.class_names))
    return division, replace(loaded.findings, notes=notes)


def _squares(
    parts: tuple[ImageSplit, ImageSplit, ImageSplit | None], side: int, fraction: float, device: torch.device
) -> tuple[ImageSplit, ImageSplit, ImageSplit | None]:
    """The splits with the squares in the middle of their pictures; see `centre_squares`."""

    def cut(split: ImageSplit) -> ImageSplit:
        images = centre_squares(stored_pictures(split.images), side, fraction, device)
        return replace(split, images=images, maps=None if split.maps is None else split.maps.squares(side, fraction))

    train, validation, test = parts
    return cut(train), cut(validation), None if test is None else cut(test)


def build_model(pipeline: Pipeline, num_channels: int) -> IJepa:
    """The model at step 0, a function of the pipeline's seed alone; on the CPU."""
    geometry = pipeline_geometry(pipeline)
    encoder = VisionTransformer(
        geometry.grid,
        pipeline.encoder.patch_size,
        num_channels,
        geometry.encoder,
        _build_position(pipeline.encoder.position, geometry.grid, geometry.encoder),
        layer_scale=pipeline.encoder.layer_scale,
        recompute=pipeline.training.activation_checkpointing,
    )
    target = build_target(pipeline, geometry, num_channels)
    grids = level_grids(geometry.grid, pipeline.hierarchy.num_levels)
    predictor = _build_predictor(pipeline, geometry, geometry.grid, target.num_features)
    coarser = [_build_level(pipeline, geometry, grid, target.num_features) for grid in grids[1:]]
    for each in (predictor, *coarser):
        each.position.follow(encoder.position)
    pyramid = _build_pyramid(pipeline, geometry, grids)
    generator = build_generator(pipeline.seed, "initialization")
    for module in (encoder, predictor, pyramid, *coarser):
        initialize_weights(module, generator)
    loss = LOSSES.entry_of(pipeline.loss).component(pipeline.loss)
    regularizer = REGULARIZERS.entry_of(pipeline.regularizer).component(pipeline.regularizer)
    hierarchy = None
    if coarser:
        hierarchy = Hierarchy(pyramid, coarser, pipeline.hierarchy.weights, pipeline.hierarchy.count_targets_on)
    return IJepa(encoder, predictor, target, loss, regularizer, hierarchy)


def _build_predictor(pipeline: Pipeline, geometry: Geometry, grid: Grid, target_dim: int) -> Predictor:
    return Predictor(
        geometry.encoder.embed_dim,
        geometry.predictor,
        _build_position(pipeline.predictor.position, grid, geometry.predictor),
        target_dim=target_dim,
        layer_scale=pipeline.predictor.layer_scale,
        recompute=pipeline.training.activation_checkpointing,
    )


def _build_level(pipeline: Pipeline, geometry: Geometry, grid: Grid, target_dim: int) -> Predictor | PredictorLevel:
    """What predicts a level above the patches: a predictor, or a level of the one that all share."""
    if pipeline.hierarchy.predictor == "separate":
        return _build_predictor(pipeline, geometry, grid, target_dim)
    token_dim = {"shared": None, "shared_level_tokens": geometry.predictor.embed_dim}[pipeline.hierarchy.predictor]
    return PredictorLevel(_build_position(pipeline.predictor.position, grid, geometry.predictor), token_dim)


def _build_pyramid(pipeline: Pipeline, geometry: Geometry, grids: list[Grid]) -> Pyramid:
    settings, width = pipeline.hierarchy, geometry.encoder.embed_dim
    component = DOWNSAMPLINGS.entry_of(settings.downsampling).component
    return Pyramid(grids, [component(settings.downsampling, width) for _ in grids[1:]], settings.skip_connections)


def build_target(pipeline: Pipeline, geometry: Geometry, num_channels: int) -> Target:
    """What is predicted."""
    inputs = target_inputs(pipeline, geometry, num_channels)
    return TARGETS.entry_of(pipeline.target).component(pipeline.target, inputs)


def fit_target(pipeline: Pipeline, model: IJepa, data: PreparedData) -> None:
    """Let the target learn what it needs of the training images, before the first step.

    Raises:
        DataError: the images do not suffice for it.
    """
    images = data.train.images
    order = torch.randperm(len(images), generator=build_generator(pipeline.seed, "target fit"))

    def batches(count: int) -> Iterator[Tensor]:
        chosen = images[order[:count].sort().values]  # in the order of the data, in which files are read faster
        for part in chosen.split(_FITTED_AT_ONCE):
            yield normalize(to_float(part.cpu()), data.mean, data.std)

    with keys_within("target"):
        model.target.fit(batches)


def _build_position(params: ComponentParams, grid: Grid, size: ModelSize) -> PositionEmbedding:
    component = POSITIONS.entry_of(params).component
    return component(params, grid, size.embed_dim, size.num_heads)


def build_drop_path(pipeline: Pipeline, device: torch.device) -> DropPath | None:
    """What decides which branches of the context encoder are skipped; None where none ever is."""
    rate = pipeline.encoder.drop_path_rate
    if rate == 0:
        return None
    depth = pipeline_geometry(pipeline).encoder.depth
    return DropPath(rate, depth, build_generator(pipeline.seed, "drop_path", device))


def build_sampler(pipeline: Pipeline) -> MaskSampler:
    """The pipeline's masker with its batching."""
    masker = build_masker(pipeline, pipeline_geometry(pipeline).grid)
    return MaskSampler(masker, pipeline.context_batching, pipeline.predictor.target_sequences == "joint")


def build_augmentation(pipeline: Pipeline) -> Augmentation:
    """The pipeline's augmentation."""
    component = AUGMENTATIONS.entry_of(pipeline.augmentation).component
    return component(pipeline.augmentation, pipeline.data.image_size)


def build_schedules(pipeline: Pipeline, steps_per_epoch: int) -> Schedules:
    """Learning rate, weight decay and EMA momentum over the run."""
    ema = EMA_SCHEDULES.entry_of(pipeline.ema_momentum).component(pipeline.ema_momentum)
    return Schedules(pipeline.optimizer, ema, pipeline.training.epochs, steps_per_epoch)


def build_step(
    pipeline: Pipeline, model: IJepa, compute: Compute, steps_per_epoch: int, team: Team | None = None
) -> TrainingStep:
    """The training step of a model that is on its device; all processes of the team build it together.

    Args:
        team: by default this process alone.
    """
    team = Alone() if team is None else team
    called = compiled(model, compute.device) if compute.compile else model
    optimizer = build_optimizer(model, pipeline.optimizer)
    return TrainingStep(
        model=model,
        forward=team.replicate(called, compute.device),
        optimizer=optimizer,
        numbers=StepNumbers(optimizer, build_schedules(pipeline, steps_per_epoch), compute.device),
        gate=FiniteGate.open(compute.device, compute.precision, pipeline.training.max_skipped_batches),
        compute=compute,
        parts=pipeline.training.accumulation_steps,
        clip_norm=pipeline.training.gradient_clip_norm,
        team=team,
    )


def build_whole_step(
    pipeline: Pipeline,
    model: IJepa,
    images: Batches,
    mean: Tensor,
    std: Tensor,
    compute: Compute,
    team: Team | None = None,
) -> WholeStep:
    """The whole step of a model that is on its device: captured where `compute` says so.

    Args:
        images: of `build_batches`. mean, std: as for `build_batch_maker`. team: as for `build_step`.
    """
    team = Alone() if team is None else team
    masks = build_mask_source(pipeline, model, compute, team)
    step = build_step(pipeline, model, compute, images.steps_per_epoch, team)
    batches = build_batch_maker(pipeline, images, masks, mean, std, compute, team)
    sums = StepSums(compute.device)
    if not compute.capture:
        return WholeStep(batches, step, sums)
    required = pipeline.training.capture == "on"
    return CapturedStep(batches, step, sums, CudaGraphs(compute.device), required)
