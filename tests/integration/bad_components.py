"""A plug-in of components that break their contract, a few of each family; used by test_plugins.py."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from jepa_lab.data.augmentations.base import AUGMENTATIONS
from jepa_lab.data.augmentations.none import NoAugmentation
from jepa_lab.data.base import DATASETS, ImageData
from jepa_lab.data.datasets.digits import Digits
from jepa_lab.downsampling.base import DOWNSAMPLINGS, Downsampling
from jepa_lab.losses.base import LOSSES, Loss
from jepa_lab.maskers.base import MASKERS, Masker, Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.maskers.single_block import SingleBlock
from jepa_lab.models.sizes import ENCODER_SIZES, PREDICTOR_SIZES, EncoderSize, ModelSize, PredictorSize
from jepa_lab.monitors.base import MONITORS, Monitor, Reading
from jepa_lab.positions.base import POSITIONS, PositionEmbedding
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.predictions import Predictions
from jepa_lab.registry import ComponentParams
from jepa_lab.regularizers.base import REGULARIZERS, Regularizer, Term
from jepa_lab.targets.base import TARGETS, FeatureGridTarget, Target
from jepa_lab.tracking.base import TRACKERS, MirrorState, Tracker
from jepa_lab.training.ema.base import EMA_SCHEDULES, EmaSchedule


def registered(registry, name):
    return registry.register(name, summary="bad", source="test")


@registered(LOSSES, "scalar_loss")
class ScalarLoss(Loss):
    def per_patch(self, predictions, targets):
        return (predictions - targets).abs().mean()


@registered(LOSSES, "unreduced_loss")
class UnreducedLoss(Loss):
    def per_patch(self, predictions, targets):
        return (predictions - targets).abs()


@registered(LOSSES, "raising_loss")
class RaisingLoss(Loss):
    def per_patch(self, predictions, targets):
        raise ZeroDivisionError("no patch of mine")


@registered(LOSSES, "checking_loss")
class CheckingLoss(Loss):
    @classmethod
    def check(cls, params, known):
        return False

    def per_patch(self, predictions, targets):
        return (predictions - targets).abs().mean(dim=-1)


@registered(LOSSES, "detached_loss")
class DetachedLoss(Loss):
    def per_patch(self, predictions, targets):
        return (predictions - targets).abs().mean(dim=-1).detach()


@registered(LOSSES, "overwriting_loss")
class OverwritingLoss(Loss):
    """Whose mistake shows in the backward pass alone, far from its code."""

    def per_patch(self, predictions, targets):
        powers = predictions.exp()
        loss = (powers - targets).square().mean(dim=-1)
        powers.zero_()
        return loss


@registered(MASKERS, "none_masker")
class NoneMasker(SingleBlock):
    def sample(self, batch_size, generator):
        return None


@registered(MASKERS, "bare_masker")
class BareMasker(SingleBlock):
    def sample(self, batch_size, generator):
        masks = super().sample(batch_size, generator)
        return Masks(masks.context.indices, masks.target.indices)


@registered(MASKERS, "float_masker")
class FloatMasker(SingleBlock):
    def sample(self, batch_size, generator):
        masks = super().sample(batch_size, generator)
        return Masks(Patches(masks.context.indices.float()), masks.target)


@registered(MASKERS, "flat_masker")
class FlatMasker(SingleBlock):
    def sample(self, batch_size, generator):
        masks = super().sample(batch_size, generator)
        return Masks(Patches(masks.context.indices[:, 0]), masks.target)


@registered(MASKERS, "outside_masker")
class OutsideMasker(SingleBlock):
    def sample(self, batch_size, generator):
        masks = super().sample(batch_size, generator)
        return Masks(Patches(masks.context.indices + 1000), masks.target)


@registered(MASKERS, "later_masker")
class LaterMasker(SingleBlock):
    def sample(self, batch_size, generator):
        masks = super().sample(batch_size, generator)
        return masks if batch_size == 2 else masks[:1]


@registered(MASKERS, "later_outside_masker")
class LaterOutsideMasker(SingleBlock):
    def sample(self, batch_size, generator):
        masks = super().sample(batch_size, generator)
        return masks if batch_size == 2 else Masks(Patches(masks.context.indices + 900), masks.target)


@registered(MASKERS, "unsized_masker")
class UnsizedMasker(Masker):
    def sample(self, batch_size, generator):
        patches = torch.zeros(batch_size, 1, 4, dtype=torch.int64)
        return Masks(Patches(patches), Patches(patches + 1))


@registered(MASKERS, "building_masker")
class BuildingMasker(SingleBlock):
    def __init__(self, params, grid):
        raise KeyError("nowhere")


@registered(POSITIONS, "double_position")
class DoublePosition(PositionEmbedding):
    def add(self, tokens, indices):
        return tokens.double()


@registered(POSITIONS, "short_position")
class ShortPosition(PositionEmbedding):
    def add(self, tokens, indices):
        return tokens[:, :1]


@registered(POSITIONS, "single_rotation")
class SingleRotation(PositionEmbedding):
    def rotation(self, indices):
        return torch.zeros(len(indices), 1, indices.shape[1], self.embed_dim // self.num_heads)


@registered(POSITIONS, "torn_rotation")
class TornRotation(PositionEmbedding):
    def rotation(self, indices):
        angles = torch.rand(len(indices), 1, indices.shape[1], self.embed_dim // self.num_heads)
        return angles.cos(), angles.sin()


@registered(TARGETS, "narrow_target")
class NarrowTarget(Target):
    def compute(self, target_encoder, images, masks):
        return torch.zeros(*masks.target.shape, 1)


@registered(TARGETS, "half_a_feature")
class HalfAFeature(Target):
    def __init__(self, params, inputs):
        super().__init__(params, inputs)
        self.num_features = 0.5

    def compute(self, target_encoder, images, masks):
        return None


@registered(TARGETS, "nothing_target")
class NothingTarget(Target):
    def compute(self, target_encoder, images, masks):
        return None


@registered(TARGETS, "flat_features_target")
class FlatFeaturesTarget(FeatureGridTarget):
    def encode(self, target_encoder, images):
        return target_encoder(images).mean(dim=1)

    def of_features(self, features, masks):
        return features


@registered(TARGETS, "raising_target")
class RaisingTarget(Target):
    def fit(self, images):
        raise RuntimeError("cannot fit")

    def compute(self, target_encoder, images, masks):
        return None


@registered(REGULARIZERS, "list_regularizer")
class ListRegularizer(Regularizer):
    def terms(self, representations):
        return [representations.context.mean()]


@registered(REGULARIZERS, "bare_regularizer")
class BareRegularizer(Regularizer):
    def terms(self, representations):
        return {"mine": representations.context.mean()}


@registered(REGULARIZERS, "vector_regularizer")
class VectorRegularizer(Regularizer):
    def terms(self, representations):
        return {"mine": Term(1.0, representations.context.mean(dim=0))}


@registered(ENCODER_SIZES, "tuple_size")
class TupleSize(EncoderSize):
    def resolve(self):
        return (16, 1, 2)


@registered(ENCODER_SIZES, "empty_size")
class EmptySize(EncoderSize):
    def resolve(self):
        return ModelSize(0, 1, 1)


@registered(PREDICTOR_SIZES, "half_block")
class HalfBlock(PredictorSize):
    def resolve(self, encoder):
        return ModelSize(8, 0.5, 2)


@registered(EMA_SCHEDULES, "rising_ema")
class RisingEma(EmaSchedule):
    def momentum(self, progress):
        return 0.9 + progress


@registered(EMA_SCHEDULES, "tensor_ema")
class TensorEma(EmaSchedule):
    def momentum(self, progress):
        return torch.tensor(0.9)


@registered(AUGMENTATIONS, "byte_augmentation")
class ByteAugmentation(NoAugmentation):
    def apply(self, images, sizes, draws):
        return (images * 255).to(torch.uint8)


@registered(AUGMENTATIONS, "cropping_augmentation")
class CroppingAugmentation(NoAugmentation):
    def apply(self, images, sizes, draws):
        return images[..., :4, :4]


@registered(AUGMENTATIONS, "one_draw_augmentation")
class OneDrawAugmentation(NoAugmentation):
    def draw(self, batch_size, generator):
        return (torch.rand(1, generator=generator, device=generator.device),)


def changed(data, images=None, labels=None, names=None):
    train = type(data.train)(
        data.train.images if images is None else images(data.train.images),
        data.train.labels if labels is None else labels(data.train.labels),
    )
    return ImageData(train, data.test, data.class_names if names is None else names, data.digest, data.source)


@registered(DATASETS, "float_images")
class FloatImages(Digits):
    def load(self):
        return changed(super().load(), images=lambda images: images.float() / 255)


@registered(DATASETS, "large_images")
class LargeImages(Digits):
    def load(self):
        return changed(super().load(), images=lambda images: images.repeat(1, 1, 2, 2))


@registered(DATASETS, "text_labels")
class TextLabels(Digits):
    def load(self):
        return changed(super().load(), labels=lambda labels: [str(label) for label in labels])


@registered(DATASETS, "ten_labels")
class TenLabels(Digits):
    def load(self):
        return changed(super().load(), names=("a", "b"))


@registered(DATASETS, "tuple_data")
class TupleData(Digits):
    def load(self):
        data = super().load()
        return data.train.images, data.train.labels


@registered(DATASETS, "listed_files")
class ListedFiles(Digits):
    def image_files(self):
        return ["a.png"]


@registered(DATASETS, "many_images")
class ManyImages(Digits):
    def num_train_images(self):
        return "many"


@registered(DATASETS, "unlabelled_test")
class UnlabelledTest(Digits):
    def load(self):
        data = super().load()
        return replace(data, test=replace(data.test, labels=None))


@registered(DOWNSAMPLINGS, "stacking")
class Stacking(Downsampling):
    def forward(self, children, seen):
        return children


@registered(MONITORS, "unread_monitor")
class UnreadMonitor(Monitor):
    def measure(self, observed):
        return {}


@registered(MONITORS, "borrowing_monitor")
class BorrowingMonitor(Monitor):
    readings: ClassVar = {"rankme": Reading("RankMe", "maximize")}

    def measure(self, observed):
        return {"rankme": 1.0}


@registered(MONITORS, "bare_monitor")
class BareMonitor(Monitor):
    readings: ClassVar = {"bare_monitor": Reading("mine", "maximize")}

    def measure(self, observed):
        return 1.0


@registered(MONITORS, "infinite_monitor")
class InfiniteMonitor(Monitor):
    readings: ClassVar = {"infinite_monitor": Reading("mine", "maximize")}

    def measure(self, observed):
        return {"infinite_monitor": float("inf")}


@registered(MONITORS, "raising_monitor")
class RaisingMonitor(Monitor):
    readings: ClassVar = {"raising_monitor": Reading("mine", "maximize")}

    def measure(self, observed):
        return {"raising_monitor": 1 / 0}


@registered(PROBES, "number_probe")
class NumberProbe(Probe):
    title = "a number"

    def run(self, subject):
        return 0.5


@registered(PROBES, "percent_probe")
class PercentProbe(Probe):
    title = "a percentage"

    def run(self, subject):
        return ProbeOutcome((Score(97.5, None),), {})


@registered(PROBES, "tensor_probe")
class TensorProbe(Probe):
    title = "a tensor"

    def run(self, subject):
        return ProbeOutcome((Score(0.5, 0.5),), {"weights": torch.zeros(2)})


@registered(PROBES, "silent_probe")
class SilentProbe(Probe):
    title = "a number without predictions"

    def run(self, subject):
        return ProbeOutcome((Score(0.5, 0.5),), {})


@registered(PROBES, "flattering_probe")
class FlatteringProbe(Probe):
    title = "more than was right"

    def run(self, subject):
        found = Predictions(subject.splits.validation.labels.numpy(), None)
        return ProbeOutcome((Score(0.99, None),), {}, predictions={"": found})


@registered(PROBES, "nameless_probe")
class NamelessProbe(Probe):
    def run(self, subject):
        return ProbeOutcome((Score(0.5, 0.5),), {})


@registered(PROBES, "counting_probe")
class CountingProbe(NamelessProbe):
    title = "keys"

    def score_keys(self, depth):
        return depth


@registered(PROBES, "repeating_probe")
class RepeatingProbe(Probe):
    title = "twice"

    def run(self, subject):
        return ProbeOutcome((Score(0.5, 0.5), Score(0.6, 0.5)), {})


class SilentTracker(Tracker):
    Params = ComponentParams

    def settings(self):
        return None

    def start(self, folder):
        pass

    def close(self, timeout_seconds, say=print):
        return MirrorState()

    def describe(self):
        return "nowhere"


@registered(TRACKERS, "text_tracker")
class TextTracker(SilentTracker):
    def settings(self):
        return "sqlite:///mine.db"


@registered(TRACKERS, "mute_tracker")
class MuteTracker(SilentTracker):
    def describe(self):
        return None


@registered(TRACKERS, "stateless_tracker")
class StatelessTracker(SilentTracker):
    def close(self, timeout_seconds, say=print):
        return None
