"""The schema of a pipeline file: one YAML, one experiment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

import jepa_lab.data.augmentations
import jepa_lab.data.datasets
import jepa_lab.downsampling
import jepa_lab.losses
import jepa_lab.maskers
import jepa_lab.monitors
import jepa_lab.positions
import jepa_lab.probes
import jepa_lab.regularizers
import jepa_lab.targets
import jepa_lab.tracking
import jepa_lab.training.ema  # noqa: F401  (each family registers its components)
from jepa_lab.config.fields import Component, Components, section_of
from jepa_lab.data.augmentations.base import AUGMENTATIONS
from jepa_lab.data.base import DATASETS, LabelSource, ValidationSplit
from jepa_lab.data.image_files import OnBadImage
from jepa_lab.data.residency import Residency
from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.errors import Key
from jepa_lab.losses.base import LOSSES
from jepa_lab.maskers.base import MASKERS
from jepa_lab.maskers.batching import ContextBatching
from jepa_lab.models.level_masks import CountTargetsOn
from jepa_lab.models.sizes import ENCODER_SIZES, PREDICTOR_SIZES
from jepa_lab.monitors.base import ALWAYS_MEASURED, MONITORS
from jepa_lab.monitors.collapse import CollapseSettings
from jepa_lab.positions.base import POSITIONS
from jepa_lab.probes.base import PROBES
from jepa_lab.probes.settings import ProbeSettings
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.regularizers.base import REGULARIZERS
from jepa_lab.targets.base import TARGETS
from jepa_lab.tracking.base import TRACKERS
from jepa_lab.training.ema.base import EMA_SCHEDULES
from jepa_lab.training.schedules import OptimizerSettings
from jepa_lab.training.settings import TrainingSettings

Dataset = Annotated[ComponentParams, Component(DATASETS)]
Augmentation = Annotated[ComponentParams, Component(AUGMENTATIONS)]
Masker = Annotated[ComponentParams, Component(MASKERS)]
EncoderSize = Annotated[ComponentParams, Component(ENCODER_SIZES)]
PredictorSize = Annotated[ComponentParams, Component(PREDICTOR_SIZES)]
Position = Annotated[ComponentParams, Component(POSITIONS)]
Target = Annotated[ComponentParams, Component(TARGETS)]
Loss = Annotated[ComponentParams, Component(LOSSES)]
Regularizer = Annotated[ComponentParams, Component(REGULARIZERS)]
Downsampling = Annotated[ComponentParams, Component(DOWNSAMPLINGS)]
EmaMomentum = Annotated[ComponentParams, Component(EMA_SCHEDULES)]
Probe = Annotated[ComponentParams, Component(PROBES)]
Probes = Annotated[tuple[ComponentParams, ...], Components(PROBES)]
Monitors = Annotated[tuple[ComponentParams, ...], Components(MONITORS)]
Tracking = Annotated[ComponentParams, Component(TRACKERS)]


def _default(name: str) -> Any:
    """A component field whose default is this name with all its defaults."""
    return Field(default=name, validate_default=True)


class DataSource(ComponentParams):
    """Which images, and where they are."""

    dataset: Dataset = Field(description="The data set; `jepa-lab list dataset` shows all.")
    root: str | None = Field(
        None, min_length=1, description="Folder of the data set's files; null uses the data set's own place."
    )
    max_images: int | None = Field(
        None, ge=2, strict=True, description="Use a stratified subset of this many images of each split."
    )
    on_bad_image: OnBadImage = Field(
        "error",
        description="A file that cannot be decoded is an error that names it (error), or is left out, logged and "
        "counted in result.json (skip).",
    )
    cache: bool = Field(
        False,
        strict=True,
        description="Decode image files once into a file under $JEPA_LAB_CACHE (by default ~/.cache/jepa-lab), which "
        "later runs map into memory; for data sets of image files.",
    )

    labels: LabelSource = Field(
        "auto",
        description="Labels of data set image_folder: the names of class folders (folders), no labels and images at "
        "any depth (none), or what the folders look like (auto): classes are the folders in train/, or without train/ "
        "those of the root if every image lies exactly one level down in at least two of them.",
    )
    test_fraction: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the labelled images, by class, kept as test split where the data set has none; 0 does "
        "without a test split.",
    )
    validation_split: ValidationSplit = Field(
        "fraction",
        description="The validation split is cut from the training images (fraction, as large as "
        "data.validation_fraction says), or is the folder val/, valid/ or validation/ of data set image_folder "
        "(folder).",
    )


class DataSettings(DataSource):
    """The images, their size, and the validation split."""

    image_size: int = Field(ge=1, strict=True, description="Height and width in pixels that the encoder sees.")
    resize: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Height and width in pixels that whole pictures are stored at, whatever their shape; crops are "
        "chosen in the picture's own pixels and cut out of that. Null is 1.5 times image_size for image files (but no "
        "more than the pictures have, and no less than image_size), and image_size for data sets of squares.",
    )
    validation_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the training images, by class, kept from pretraining for every choice; see "
        "validation_split.",
    )
    split_seed: int = Field(0, ge=0, strict=True, description="Seed of the splits that are cut, the same in all runs.")
    test_split_seed: int | None = Field(
        None,
        ge=0,
        strict=True,
        description="Seed of a test split that is cut, and of the choice of max_images; null is split_seed. With a "
        "fixed one, split_seed changes nothing but which training images are the validation split.",
    )
    residency: Residency = Field(
        "auto",
        description="Images live on the device (resident), or are read and copied batch by batch (streaming); auto "
        "streams what would take more than a quarter of the memory. The results are the same.",
    )
    num_workers: int | None = Field(
        None,
        ge=0,
        le=1024,
        strict=True,
        description="Processes that decode streaming images; 0 decodes in the training process, null takes the cores "
        "of this process less one. The results are the same.",
    )
    channel_mean: tuple[float, ...] | None = Field(
        None, description="Mean of each channel (pixels in [0, 1]); null computes it on the training images."
    )
    channel_std: tuple[float, ...] | None = Field(
        None, description="Standard deviation of each channel; null computes it on the training images."
    )

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if self.resize is not None and self.resize < self.image_size:
            raise broken_rule(
                Key("resize"),
                " must be at least ",
                Key("image_size"),
                f" ({self.image_size}), or every crop would be enlarged, got {self.resize}; raise it, or use null",
            )
        if (self.channel_mean is None) != (self.channel_std is None):
            raise broken_rule(
                Key("channel_mean"), " and ", Key("channel_std"), " belong together: give both or neither"
            )
        if self.channel_std is not None and min(self.channel_std) <= 0:
            raise broken_rule(Key("channel_std"), f" must be positive, got {self.channel_std}")
        return self


def _layer_scale() -> Any:
    """The field `layer_scale` of a network."""
    return Field(
        None,
        ge=0,
        le=1,
        description="First value of the learned factor on each feature of what a block adds (LayerScale), such as "
        "1e-5; null has no such factors.",
    )


class EncoderSettings(ComponentParams):
    """The vision transformer."""

    size: EncoderSize = _default("cifar")
    patch_size: int = Field(ge=1, strict=True, description="Side of a patch in pixels; must divide data.image_size.")
    position: Position = _default("sincos")
    weights: str | None = Field(
        None,
        min_length=1,
        description="Where both encoders get their first weights from: a run, an export, models:/..., a released "
        "checkpoint, a folder of timm or transformers; null draws them. Learned positions are resampled.",
    )
    layer_scale: float | None = _layer_scale()
    drop_path_rate: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Probability that a training image skips a branch of the last block of the context encoder, rising "
        "linearly from 0 at the first block (stochastic depth).",
    )


class PredictorSettings(ComponentParams):
    """The predictor."""

    size: PredictorSize = _default("half")
    position: Position = _default("sincos")
    layer_scale: float | None = _layer_scale()
    target_sequences: Literal["separate", "joint"] = Field(
        "separate",
        description="One sequence for each target block (the reference), or one over the union of the blocks.",
    )


class HierarchySettings(ComponentParams):
    """Coarser levels above the patches, each predicted apart; one level is plain I-JEPA."""

    num_levels: int = Field(
        1,
        ge=1,
        le=8,
        strict=True,
        description="Levels; each has half the cells a side of the one below, rounded up.",
    )
    loss_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, description="Weight of each level's loss, finest first; null is 1 for each."
    )
    downsampling: Downsampling = _default("pooling")
    skip_connections: bool = Field(
        False, strict=True, description="Add to every cell the feature of the coarser cell that it lies in (top down)."
    )
    predictor: Literal["separate", "shared", "shared_level_tokens"] = Field(
        "separate",
        description="A predictor for each level (separate), or the very same one for all: levels then differ by their "
        "features and the positions on their grids alone (shared), or by a learned mask token each, too "
        "(shared_level_tokens).",
    )
    count_targets_on: CountTargetsOn = Field(
        "patches",
        description="A cell is a target of a block when at least half of its patches are (patches), or at least half "
        "of its cells of the level below (level_below): from level 3 on most of such a cell may be visible.",
    )

    @model_validator(mode="after")
    def _check(self) -> HierarchySettings:
        if self.loss_weights is None:
            return self
        if len(self.loss_weights) != self.num_levels:
            raise broken_rule(
                Key("loss_weights"),
                f" must have a number for each of the {self.num_levels} level(s) of ",
                Key("num_levels"),
                f", got {len(self.loss_weights)}; give that many, or null for 1 each",
            )
        if not any(self.loss_weights):
            raise broken_rule(Key("loss_weights"), " must not all be 0; raise one")
        if self.num_levels == 1 and self.loss_weights != (1,):
            raise broken_rule(
                Key("loss_weights"),
                f" of one level must be [1], got {self.loss_weights}; leave it out, or use null",
                keys=["num_levels"],
            )
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each level's loss."""
        return (1.0,) * self.num_levels if self.loss_weights is None else self.loss_weights


class ProbePipelineSettings(ProbeSettings):
    """The probes, and data of their own where they have some."""

    method: Probe = Field(
        default="logistic",
        validate_default=True,
        description="The probe whose accuracies are the result: probe/validation_accuracy and so on.",
    )
    additional: Probes = Field(
        default=("knn",),
        validate_default=True,
        description="More probes, whose metrics bear their names: probe/knn_validation_accuracy and so on.",
    )
    data: DataSource | None = Field(None, description="Labelled data to probe on; null probes on the run's own.")

    @field_validator("method")
    @classmethod
    def _gives_one_accuracy(cls, method: ComponentParams) -> ComponentParams:
        entry = PROBES.entry_of(method)
        if not entry.component.gives_one_accuracy:
            able = ", ".join(each.name for each in PROBES if each.component.gives_one_accuracy)
            raise ValueError(
                f"must be a probe that gives one accuracy ({able}), got {entry.name!r}; "
                f"write additional: [{entry.name}]"
            )
        return method

    @model_validator(mode="after")
    def _check(self) -> ProbePipelineSettings:
        method = PROBES.entry_of(self.method)
        if any(item.name == method.name for item in self.additional):  # type: ignore[attr-defined]
            raise broken_rule(
                Key("additional"),
                f" holds {method.name!r}, which is the method already; remove it there",
                keys=["method"],
            )
        return self


END_MONITORS = ("rankme", "alpha_req", "lidar")


class MonitorSettings(ComponentParams):
    """What is seen of the features without labels."""

    probe_epochs: Monitors = Field(
        default=("uniformity", "alpha_req"),
        validate_default=True,
        description="Monitors at each probe epoch, on at most 512 validation images: the curves monitor/uniformity and "
        "so on. rankme, feature_std and image_variance_ratio are measured in any case, for the rule of collapse.",
    )
    end: Monitors = Field(
        default=END_MONITORS,
        validate_default=True,
        description="Monitors at the end of the run, on training images without augmentation: monitor/rankme_train and "
        "so on, with the number of images in monitor/rankme_train_images. [] leaves them out.",
    )
    max_train_images: int = Field(
        25_600,
        ge=2,
        strict=True,
        description="Most training images of the monitors at the end; that of RankMe's paper.",
    )

    @field_validator("probe_epochs")
    @classmethod
    def _are_not_measured_already(cls, monitors: tuple[ComponentParams, ...]) -> tuple[ComponentParams, ...]:
        names = [MONITORS.entry_of(params).name for params in monitors]
        repeated = next((name for name in names if name in ALWAYS_MEASURED), None)
        if repeated is not None:
            raise ValueError(
                f"must hold none of {', '.join(ALWAYS_MEASURED)}, which are measured in any case, got {repeated!r}; "
                "leave it out"
            )
        return monitors


class Pipeline(ComponentParams):
    """One experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=80,
        description="Name of the run folder: letters, digits, dot, dash, underscore.",
    )
    seed: int = Field(0, ge=0, lt=2**63, strict=True, description="Sets initialisation, order, augmentation and masks.")
    plugins: tuple[str, ...] = Field((), description="Python modules to import, which register components of yours.")
    data: DataSettings
    augmentation: Augmentation = _default("minimal")
    masker: Masker = _default("multi_block")
    context_batching: ContextBatching = Field(
        "pad",
        description="Unequal numbers of context patches in a batch: keep all (pad), or cut to the smallest at random "
        "(subset) or in raster order (prefix, the released code).",
    )
    encoder: EncoderSettings
    predictor: PredictorSettings = Field(default_factory=lambda: PredictorSettings.model_validate({}))
    hierarchy: HierarchySettings = Field(default_factory=lambda: HierarchySettings.model_validate({}))
    target: Target = _default("features")
    loss: Loss = _default("smooth_l1")
    regularizer: Regularizer = _default("none")
    ema_momentum: EmaMomentum = _default("linear")
    optimizer: OptimizerSettings = OptimizerSettings()
    training: TrainingSettings = TrainingSettings()
    probe: ProbePipelineSettings = Field(default_factory=lambda: ProbePipelineSettings.model_validate({}))
    monitors: MonitorSettings = Field(default_factory=lambda: MonitorSettings.model_validate({}))
    collapse: CollapseSettings = CollapseSettings()
    tracking: Tracking = _default("mlflow")


def rebuild_schema(section: type[BaseModel] = Pipeline) -> None:
    """Let a section and those inside it accept the components that are registered now.

    From the inside out: a model keeps the finished schemas of its sections.
    """
    for field in section.model_fields.values():
        inner = section_of(field)
        if inner is not None:
            rebuild_schema(inner)
    section.model_rebuild(force=True)
