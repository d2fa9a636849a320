"""The linear probe by the I-JEPA paper's own protocol."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.centre_squares import centre_squares, stored_pictures
from jepa_lab.errors import Key
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.batch_norm import BatchNorm
from jepa_lab.probes.grids import Tried, edge_of
from jepa_lab.probes.heads import LinearHeads, summed_cross_entropy
from jepa_lab.probes.lars import StackedLars
from jepa_lab.probes.predictions import Predictions, accuracy_of
from jepa_lab.probes.scores import NO_TEST, score_predictions
from jepa_lab.probes.splits import labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.probes.training_images import TrainingImages
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams, broken_rule

_REFERENCE_BATCH = 256
"""Images that the learning rates are meant for."""
_INITIAL_STD = 0.01
_BLOCKS = {"last": 1, "last_four": 4}

Layers = Literal["last", "last_four"]
Head = Literal["linear", "batch_norm"]


class LinearIjepaParams(ComponentParams):
    """The protocol; the defaults are the paper's for ImageNet."""

    layers: tuple[Layers, ...] = Field(
        ("last", "last_four"),
        min_length=1,
        description="Features that are tried, whatever probe.layers says: of the last block, of the last four (of all, "
        "where there are fewer) side by side.",
    )
    heads: tuple[Head, ...] = Field(
        ("linear", "batch_norm"),
        min_length=1,
        description="Heads that are tried: a linear classifier, or one after a batch norm without affine parameters.",
    )
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.001, 0.01, 0.05),
        min_length=1,
        description="Learning rates that are tried, increasing, for 256 images in a step; multiplied by the images in "
        "a step / 256.",
    )
    weight_decays: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.0, 0.0005), min_length=1, description="Weight decays that are tried, increasing; biases do not decay."
    )
    optimizer: Literal["lars", "sgd"] = Field(
        "lars", description="LARS, or SGD with the same momentum of 0.9, for few images."
    )
    batch_size: int = Field(
        16_384, ge=2, strict=True, description="Images in a step; all training images where they are fewer."
    )
    epochs: int = Field(50, ge=1, le=10_000, strict=True, description="Passes over the training images.")
    decay_every_epochs: int = Field(
        15, ge=1, strict=True, description="Epochs after which the learning rate is divided by 10, again and again."
    )
    augmentation: Minimal.Params | None = Field(
        Minimal.Params(crop_scale=(0.08, 1.0)),
        description="Crops and flips of the training images, with the parameters of augmentation `minimal` (mind "
        "flip_probability for digits and letters); null for none.",
    )
    resize: int = Field(
        256,
        ge=1,
        strict=True,
        description="What the shorter side of a picture is resized to before its centre is cut out, where the encoder "
        "takes squares of `crop` pixels. For an encoder of smaller squares both are scaled: 37 and 32 for CIFAR.",
    )
    crop: int = Field(
        224, ge=1, strict=True, description="Side of the centre square that is evaluated on; at most `resize`."
    )

    @model_validator(mode="after")
    def _check(self) -> LinearIjepaParams:
        for name, values in (("learning_rates", self.learning_rates), ("weight_decays", self.weight_decays)):
            if any(low >= high for low, high in itertools.pairwise(values)):
                raise broken_rule(Key(name), f" must be increasing without repetition, got {values}")
        for name, choices in (("layers", self.layers), ("heads", self.heads)):
            if len(set(choices)) < len(choices):
                raise broken_rule(Key(name), f" must have each value once, got {choices}")
        if self.crop > self.resize:
            raise broken_rule(Key("crop"), " must be at most ", Key("resize"), f" ({self.resize}), got {self.crop}")
        return self


class _Setting(NamedTuple):
    """What one classifier is trained with."""

    layers: Layers
    head: Head
    rate: float
    weight_decay: float

    def in_words(self, *, of_encoder: bool) -> str:
        """For people; raw pixels have no blocks."""
        features = {"last": "the last block, ", "last_four": "the last four blocks, "}[self.layers]
        norm = {"linear": "no batch norm", "batch_norm": "batch norm"}[self.head]
        head = f"{norm}, learning rate {self.rate:g}, weight decay {self.weight_decay:g}"
        return features + head if of_encoder else head


@PROBES.register(
    "linear_ijepa",
    summary="linear classifier by the I-JEPA paper's protocol: LARS, batch norm or none, last block or four, crops",
    source="Assran et al. 2023, arXiv:2301.08243, app. A, whose evaluation is that of VISSL with LARS as in He et al. "
    "2021, arXiv:2111.06377",
)
class LinearIjepa(Probe):
    """Trains all combinations of features, head, learning rate and weight decay side by side on augmented images.

    Features of each training image are computed anew in every epoch, because every crop is another one. Images are
    evaluated as the centre of a resized picture, whatever `probe.crop_fraction` says. The weights after the last epoch
    count.

    Differs from the paper: our validation split chooses the combination, where the paper reports the best number; and
    for the test split it is trained again on training + validation. A batch of fewer images than `batch_size` lowers
    the learning rate in proportion, as the protocol's rule says. Raw pixels have one kind of features.
    """

    Params = LinearIjepaParams
    params: LinearIjepaParams
    title = "a linear classifier by the protocol of I-JEPA"

    def run(self, subject: Subject) -> ProbeOutcome:
        splits, params = subject.splits, self.params
        kinds = params.layers if subject.encoder is not None else params.layers[:1]
        settings = [
            _Setting(*each)
            for each in itertools.product(kinds, params.heads, params.learning_rates, params.weight_decays)
        ]
        training = _Training(params, subject, [splits.train])
        predicted = training.fit_and_predict(settings, splits.validation)  # [G, n]
        truth = labels_of(splits.validation).numpy()
        accuracies = [accuracy_of(each, truth) for each in predicted.numpy()]
        best = max(range(len(settings)), key=lambda index: (accuracies[index], -index))
        scores, tested = NO_TEST, None
        if splits.test is not None:
            again = _Training(params, subject, [splits.train, splits.validation])
            tested = again.fit_and_predict([settings[best]], splits.test)[0].numpy()
            scores = score_predictions(labels_of(splits.test).numpy(), tested, splits.class_names)
        main = Score(accuracies[best], scores.test_accuracy, test_interval=scores.test_interval)
        details = {
            **settings[best]._asdict(),
            "validation_accuracy_by_setting": [
                [*each, found] for each, found in zip(settings, accuracies, strict=True)
            ],
            "images_in_a_step": training.step_size,
            "steps": training.steps,
            **vars(scores),
        }
        choice = settings[best].in_words(of_encoder=subject.encoder is not None) if len(settings) > 1 else ""
        notes = (*self._notes(settings, accuracies, best), *training.notes())
        return ProbeOutcome((main,), details, notes, choice, {"": Predictions(predicted[best].numpy(), tested)})

    def _notes(self, settings: list[_Setting], accuracies: list[float], best: int) -> Iterator[str]:
        by_rate = [
            Tried(rate, max(found for each, found in zip(settings, accuracies, strict=True) if each.rate == rate))
            for rate in dict.fromkeys([settings[best].rate, *self.params.learning_rates])
        ]
        edge = edge_of(by_rate)
        if edge is not None:
            where = {"low": "smallest", "high": "largest"}[edge]
            rate = f"learning rate {settings[best].rate:g}"
            yield f"{rate} is the {where} of learning_rates; a better one may lie beyond it"


@dataclass(frozen=True)
class _Group:
    """Classifiers of the same features behind the same kind of head."""

    layers: Layers
    head: Head
    places: tuple[int, ...]
    rates: Tensor
    classifiers: LinearHeads
    optimizer: StackedLars

    def logits(self, plain: Tensor, normalised: Tensor, width: int) -> Tensor:
        """[G, b, C].

        Args:
            plain, normalised: features [b, D'] of the last blocks side by side.
            width: of those of the last block, which are at the end.
        """
        features = normalised if self.head == "batch_norm" else plain
        return self.classifiers.logits(features[:, -width:] if self.layers == "last" else features)


class _Training:
    """Classifiers of the images of some splits.

    A step's features are computed a part at a time, so that memory holds no more images than an extraction does.
    """

    def __init__(self, params: LinearIjepaParams, subject: Subject, splits: Sequence[ImageSplit]) -> None:
        self.params, self.splits = params, splits
        blocks = min(subject.depth, max(_BLOCKS[each] for each in params.layers))
        self.subject = replace(subject, num_layers=blocks)
        self.labels = torch.cat([labels_of(split) for split in splits])
        wanted = min(params.batch_size, len(self.labels))
        self.parts = -(-wanted // subject.batch_size)
        self.part_size = wanted // self.parts
        self.step_size = self.parts * self.part_size
        self.steps_per_epoch = len(self.labels) // self.step_size
        self.steps = params.epochs * self.steps_per_epoch

    def notes(self) -> Iterator[str]:
        """What a reader should know before trusting the accuracies."""
        if self.steps_per_epoch == 1 and self.params.epochs > 1:
            yield f"an epoch is a single step, of {self.step_size} images, so there were {self.steps}; lower batch_size"

    def fit_and_predict(self, settings: Sequence[_Setting], split: ImageSplit) -> Tensor:
        """The class of each image of the split by a classifier of each setting, [G, n] int64 on the CPU."""
        (one,) = self.subject.feature_batches(split.images[torch.arange(1)])
        width = one.shape[1]
        of_last = width // self.subject.num_layers if self.subject.encoder is not None else width
        groups = list(self._groups(settings, {"last": of_last, "last_four": width}))
        norm = BatchNorm(width, self.subject.device)
        self._fit(groups, norm, of_last)
        found = torch.empty(len(settings), len(split), dtype=torch.int64)
        start = 0
        with torch.no_grad():
            for part in self._evaluated(split):
                plain = part.to(self.subject.device)
                normalised, rows = norm(plain, training=False), slice(start, start + len(part))
                for group in groups:
                    logits = group.logits(plain, normalised, of_last)
                    found[list(group.places), rows] = logits.argmax(dim=2).cpu()
                start = rows.stop
        return found

    def _groups(self, settings: Sequence[_Setting], widths: dict[Layers, int]) -> Iterator[_Group]:
        device, num_classes = self.subject.device, len(self.subject.splits.class_names)
        for layers, head in dict.fromkeys((each.layers, each.head) for each in settings):
            places = tuple(place for place, each in enumerate(settings) if (each.layers, each.head) == (layers, head))
            generator = build_generator(self.subject.seed, f"linear_ijepa {layers} {head}")
            classifiers = LinearHeads.normal(len(places), widths[layers], num_classes, _INITIAL_STD, generator, device)
            rates = torch.tensor([settings[place].rate for place in places], device=device)
            decays = torch.tensor([settings[place].weight_decay for place in places], device=device)
            scaled = self.params.optimizer == "lars"
            optimizer = StackedLars(classifiers.weights, classifiers.biases, decays, scaled=scaled)
            yield _Group(layers, head, places, rates * self.step_size / _REFERENCE_BATCH, classifiers, optimizer)

    def _fit(self, groups: Sequence[_Group], norm: BatchNorm, width: int) -> None:
        augmentation = None
        if self.params.augmentation is not None:
            augmentation = Minimal(self.params.augmentation, self.splits[0].images.shape[-1])
        images = TrainingImages(self.splits, self.part_size, augmentation, self.subject, "linear_ijepa")
        with closing(images):
            for step in range(self.steps):
                plain, labels = self._step_features(images)
                normalised = norm(plain, training=True)
                decayed = 0.1 ** (step // self.steps_per_epoch // self.params.decay_every_epochs)
                for group in groups:
                    loss = summed_cross_entropy(group.logits(plain, normalised, width), labels)
                    parameters = (group.classifiers.weights, group.classifiers.biases)
                    group.optimizer.step(torch.autograd.grad(loss, parameters), group.rates * decayed)

    def _step_features(self, images: TrainingImages) -> tuple[Tensor, Tensor]:
        """Features [B, D'] and labels [B] of the next step, on the device."""
        features, numbers = [], []
        for _ in range(self.parts):
            batch, which = images.next()
            features.append(self.subject.features_of(batch))
            numbers.append(which)
        return torch.cat(features), self.labels[torch.cat(numbers)].to(self.subject.device)

    def _evaluated(self, split: ImageSplit) -> Iterator[Tensor]:
        """Features of resized and centrally cut images, [b, D'] on the CPU."""
        side, share = split.images.shape[-1], self.params.crop / self.params.resize
        squares = centre_squares(stored_pictures(split.images), side, share, self.subject.device)
        return self.subject.feature_batches(squares)
