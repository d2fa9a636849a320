"""The fine-tuning probe: a copy of the encoder and a linear head, trained end to end."""

from __future__ import annotations

import copy
import math
import re
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.data.images import Images
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.features import Autocast, evaluation_mode
from jepa_lab.probes.predictions import Predictions, accuracy_of
from jepa_lab.probes.scores import NO_TEST, score_predictions
from jepa_lab.probes.splits import labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.probes.training_images import TrainingImages
from jepa_lab.randomness import derive_seed
from jepa_lab.registry import ComponentParams


class FinetuneParams(ComponentParams):
    """The schedule, the optimizer and the augmentation."""

    epochs: int = Field(50, ge=1, le=10_000, strict=True, description="Passes over the training images.")
    batch_size: int = Field(64, ge=1, strict=True, description="Images in a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak of AdamW's learning rate, that of the head.")
    layer_decay: float = Field(
        0.75, gt=0, le=1, description="Factor of the learning rate from each block to the one before it; 1 for none."
    )
    weight_decay: float = Field(0.05, ge=0, description="AdamW's, of weight matrices alone.")
    warmup_fraction: float = Field(
        0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises; then half a cosine to 0."
    )
    augmentation: Minimal.Params | None = Field(
        Minimal.Params(),
        description="Crops and flips of the training images, with the parameters of augmentation `minimal` (mind "
        "flip_probability for digits and letters); null for none.",
    )
    epoch: Literal["best", "last"] = Field(
        "best", description="Which weights are scored: those of the epoch that is best on validation, or the last."
    )


@PROBES.register(
    "finetune",
    summary="a copy of the encoder with a linear head, trained end to end on the labels",
    source="fine-tuning with AdamW and layer-wise decay as in Bao et al. 2021, arXiv:2106.08254, app. H",
)
class Finetune(Probe):
    """Trains encoder and head on the training split; the validation split chooses the epoch, if anything.

    Nothing is fitted on the validation split. The control is the same from the random encoder; raw pixels have none.
    """

    Params = FinetuneParams
    params: FinetuneParams
    title = "an encoder fine-tuned on the labels"
    needs_encoder = True

    def run(self, subject: Subject) -> ProbeOutcome:
        splits = subject.splits
        devices = [subject.device] if subject.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # an encoder of a plugin may have dropout, which draws from it
            torch.manual_seed(derive_seed(subject.seed, "finetune"))
            classifier = _Classifier(subject)
            training = _Training(self.params, classifier, subject)
            trained = training.run()
        scores, tested = NO_TEST, None
        if splits.test is not None:
            tested = classifier.predict(splits.test.images).numpy()
            scores = score_predictions(labels_of(splits.test).numpy(), tested, splits.class_names)
        notes = []
        accuracies, chosen = trained.accuracies, trained.epoch
        if trained.diverged:
            notes.append(f"the loss was not finite in epoch {len(accuracies) - 1}, which ended it; lower learning_rate")
        if self.params.epoch == "best" and chosen == self.params.epochs > 1:
            notes.append(f"the last epoch ({chosen}) is the best one; raise epochs")
        main = Score(accuracies[chosen], scores.test_accuracy, test_interval=scores.test_interval)
        details = {"epoch": chosen, "validation_accuracy_by_epoch": accuracies, **vars(scores)}
        choice = f"epoch {chosen}" if self.params.epoch == "best" else ""
        predictions = {"": Predictions(trained.predicted, tested)}
        return ProbeOutcome((main,), details, tuple(notes), choice, predictions)


class _Classifier(nn.Module):
    """A trainable copy of the encoder, the mean over its patches, and a linear head that begins at zero."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        assert subject.encoder is not None, "needs_encoder"
        self.encoder = copy.deepcopy(subject.encoder).requires_grad_(True)
        self.num_layers, self.batch_size, self.device = subject.num_layers, subject.batch_size, subject.device
        self.mean, self.std = (each.to(subject.device) for each in (subject.splits.mean, subject.splits.std))
        width = next(subject.feature_batches(subject.splits.train.images[torch.tensor([0])])).shape[1]
        self.head = nn.Linear(width, len(subject.splits.class_names), device=subject.device)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        tokens = self.encoder.last_layers(normalize(images, self.mean, self.std), self.num_layers)  # type: ignore[operator]
        return self.head(tokens.mean(dim=1))

    @torch.no_grad()
    def predict(self, images: Images) -> Tensor:
        """The class of each image, [n] int64 on the CPU, in full precision."""
        with evaluation_mode(self):
            parts = images.split(self.batch_size)
            return torch.cat([self(to_float(part.to(self.device))).argmax(dim=1).cpu() for part in parts])


@dataclass(frozen=True)
class _Trained:
    """What came of a training, whose classifier has the weights of the chosen epoch.

    Attributes:
        accuracies: on the validation split, after each epoch; 0 is before the first.
        epoch: the chosen one. predicted: [n] int64, its class of each validation image.
        diverged: whether the loss stopped being finite.
    """

    accuracies: list[float]
    epoch: int
    predicted: np.ndarray
    diverged: bool


class _Training:
    """The loop over epochs."""

    def __init__(self, params: FinetuneParams, classifier: _Classifier, subject: Subject) -> None:
        self.params, self.classifier, self.subject = params, classifier, subject
        self.train, self.validation = subject.splits.train, subject.splits.validation
        self.labels = labels_of(self.train).to(subject.device)
        self.augmentation = None
        if params.augmentation is not None:
            self.augmentation = Minimal(params.augmentation, self.train.images.shape[-1])
        self.optimizer = torch.optim.AdamW(
            parameter_groups(classifier, subject.depth, params.layer_decay, params.weight_decay)
        )
        half = _autocast_dtype(subject.autocast, subject.device) is torch.float16
        self.scaler = torch.amp.GradScaler(subject.device.type, enabled=half)

    def run(self) -> _Trained:
        """Train, and leave the classifier with the weights of the chosen epoch."""
        predicted = self._predict()
        accuracies = [self._accuracy(predicted)]
        chosen, kept = 0, copy.deepcopy(self.classifier.state_dict())
        arguments = (self.params.batch_size, self.augmentation, self.subject, "finetune")
        with closing(TrainingImages([self.train], *arguments)) as batches:
            for epoch in range(1, self.params.epochs + 1):
                finite = self._epoch(batches, epoch)
                found = self._predict()
                accuracies.append(self._accuracy(found))
                if not finite:
                    self.classifier.load_state_dict(kept)
                    return _Trained(accuracies, chosen, predicted, True)
                if self.params.epoch == "last" or chosen == 0 or accuracies[epoch] > accuracies[chosen]:
                    chosen, kept, predicted = epoch, copy.deepcopy(self.classifier.state_dict()), found
        self.classifier.load_state_dict(kept)
        return _Trained(accuracies, chosen, predicted, False)

    def _epoch(self, batches: TrainingImages, epoch: int) -> bool:
        """One pass; whether every loss was finite."""
        self.classifier.train()
        steps = batches.steps_per_epoch
        finite = torch.ones((), dtype=torch.bool, device=self.subject.device)
        for step in range((epoch - 1) * steps, epoch * steps):
            factor = warmup_cosine((step + 0.5) / (self.params.epochs * steps), self.params.warmup_fraction)
            for group in self.optimizer.param_groups:
                group["lr"] = self.params.learning_rate * group["scale"] * factor
            images, numbers = batches.next()
            with self.subject.autocast():
                loss = F.cross_entropy(self.classifier(images), self.labels[numbers.to(self.labels.device)])
            finite &= loss.isfinite()
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return bool(finite)

    def _predict(self) -> np.ndarray:
        """The class of each validation image as the classifier is now, [n] int64."""
        return self.classifier.predict(self.validation.images).numpy()

    def _accuracy(self, predicted: np.ndarray) -> float:
        return accuracy_of(predicted, labels_of(self.validation).numpy())


def warmup_cosine(progress: float, warmup: float) -> float:
    """Factor of the peak learning rate: a line up to `warmup`, then half a cosine that ends at 0 for progress 1."""
    if progress < warmup:
        return progress / warmup
    rest = 1.0 if warmup >= 1 else (progress - warmup) / (1 - warmup)
    return (1 + math.cos(math.pi * rest)) / 2


def parameter_groups(
    classifier: nn.Module, depth: int, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameters by depth and by whether they decay; `scale` is the factor of the group's learning rate.

    The patch embedding and positions count as layer 0, block i as layer i, what follows the blocks as the last layer.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        layer = depth + 1
        block = re.search(r"\bblocks\.(\d+)\.", name)
        if block:
            layer = int(block[1]) + 1
        elif re.search(r"\b(patch_embed|position)\.", name):
            layer = 0
        decays = parameter.ndim > 1 and "position." not in name
        groups.setdefault((layer, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "scale": layer_decay ** (depth + 1 - layer),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (layer, decays), parameters in groups.items()
    ]


def _autocast_dtype(autocast: Autocast, device: torch.device) -> torch.dtype | None:
    """What the context computes in, if it is not full precision."""
    with autocast():
        return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
