"""The dense probe: a linear head on patch tokens says what each pixel shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.label_maps import IGNORED, LabelMaps
from jepa_lab.data.order import BatchOrder
from jepa_lab.errors import ConfigError, Key, Problem
from jepa_lab.measures import MEAN_IOU
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.feature_file import column_statistics, stored_features
from jepa_lab.probes.grids import OpenGrid, Tried, best_of, edge_of, flat_top_of, notes_on_choice, widen
from jepa_lab.probes.mean_iou import PixelCounts
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams, broken_rule

RATES = OpenGrid((0.001, 0.01, 0.1), lower=(1e-4, 1e-5), higher=(1.0, 10.0))


class SegmentationParams(ComponentParams):
    """The grid of learning rates and the length of the descent."""

    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        min_length=1,
        description="Peak learning rates of Adam, increasing; a head is trained with each, all on the same batches, "
        "and the validation split chooses one. Null: 0.001 to 0.1, and on from there to at least 1e-5 and at most 10 "
        "while the best one lies at an end.",
    )
    epochs: int = Field(10, ge=1, le=10_000, strict=True, description="Passes over the images.")
    batch_size: int = Field(64, ge=1, strict=True, description="Images in a step of the descent.")

    @model_validator(mode="after")
    def _check(self) -> SegmentationParams:
        rates = self.learning_rates or ()
        if any(low >= high for low, high in itertools.pairwise(rates)):
            raise broken_rule(Key("learning_rates"), f" must be increasing without repetition, got {rates}")
        return self


@PROBES.register(
    "segmentation",
    summary="mean IoU of a linear head on the patch features, on images with label maps",
    source="linear segmentation as in Oquab et al. 2023, arXiv:2304.07193, sec. 7.4: logits of each patch, upsampled "
    "to the pixels; downstream tables of Assran et al. 2023, arXiv:2301.08243, have dense tasks, too",
)
class Segmentation(Probe):
    """Trains one linear head per learning rate on standardised patch features, side by side.

    Logits of the patches are upsampled to the pixels of the label map by bilinear interpolation, and the loss is the
    cross-entropy of every pixel that is not ignored. The validation split chooses the rate; the head that is scored on
    the test split is trained again on training + validation. Raw pixels are the
    pixels of each patch and its place. Features are
    extracted once, into a file. Differs: Oquab et al. have batch norm in the place of standardised features.
    """

    Params = SegmentationParams
    params: SegmentationParams
    title = "a linear head on frozen patch features"
    measure = MEAN_IOU
    predicts_classes = False
    needs_labels = False

    @classmethod
    def check(cls, params: Any, known: ProbeSplits) -> Problem | None:
        if known.train.maps is not None:
            return None
        return Problem(
            "needs the class of every pixel, and these images have no label maps; set "
            "probe.data.dataset=segmentation_folder and probe.data.root=FOLDER with images/ and masks/, use "
            "data.dataset=synthetic, or leave this probe out"
        )

    def run(self, subject: Subject) -> ProbeOutcome:
        splits = subject.splits
        parts = [part for part in (splits.train, splits.validation, splits.test) if part is not None]
        batches = itertools.chain.from_iterable(subject.patch_batches(part.images) for part in parts)
        train, fitted = len(splits.train), len(splits.train) + len(splits.validation)
        width, tested = _patch_width(subject), None
        with stored_features((tokens.flatten(1).cpu() for tokens in batches), subject.scratch) as tokens:
            to_choose = _Descent(subject, self.params, tokens[:train], [_maps_of(splits.train)], width)
            search = RateChoice.of(
                lambda rates: to_choose.fit_and_count(rates, tokens[train:fitted], _maps_of(splits.validation)),
                self.params.learning_rates,
            )
            if splits.test is not None:
                both = [_maps_of(splits.train), _maps_of(splits.validation)]
                again = _Descent(subject, self.params, tokens[:fitted], both, width)
                (tested,) = again.fit_and_count([search.best_rate], tokens[fitted:], _maps_of(splits.test))
        names, found = _maps_of(splits.train).names, search.counts[search.best_rate]
        details = {
            "learning_rate": search.best_rate,
            "validation_mean_iou_by_learning_rate": [[each.value, each.accuracy] for each in search.tried()],
            "validation_iou_by_class": dict(zip(names, found.by_class(), strict=True)),
            "test_iou_by_class": None if tested is None else dict(zip(names, tested.by_class(), strict=True)),
        }
        score = Score(found.mean(), None if tested is None else tested.mean(), measure=MEAN_IOU)
        choice = f"learning rate {search.best_rate:g}" if len(search.counts) > 1 else ""
        return ProbeOutcome((score,), details, search.notes(), choice)


@dataclass(frozen=True)
class RateChoice:
    """Learning rates and what heads trained with them predicted for the validation images.

    Attributes:
        is_default: whether the grid went on beyond its ends.
    """

    counts: dict[float, PixelCounts]
    is_default: bool

    @classmethod
    def of(cls, fit: Callable[[Sequence[float]], list[PixelCounts]], rates: tuple[float, ...] | None) -> RateChoice:
        """Try the rates, or those of the default grid for None."""
        search = cls({}, rates is None)

        def attempt(some: Sequence[float]) -> None:
            search.counts.update(zip(some, fit(some), strict=True))

        attempt(rates or RATES.values)
        if rates is None:
            widen(RATES, search.tried, attempt)
        return search

    def tried(self) -> list[Tried]:
        """Increasing, so that of equal ones the smallest rate counts as the best."""
        return [Tried(rate, self.counts[rate].mean()) for rate in sorted(self.counts)]

    @property
    def best_rate(self) -> float:
        """With the highest mean IoU."""
        return best_of(self.tried()).value

    def notes(self) -> tuple[str, ...]:
        """Sentences about a rate at an end of what was tried, or on a flat top; usually none."""
        about = (edge_of(self.tried()), flat_top_of(self.tried()))
        chosen = f"learning rate {self.best_rate:g}"
        return tuple(notes_on_choice(chosen, "learning_rates", *about, is_default=self.is_default))


def _patch_width(subject: Subject) -> int:
    """Features of a patch.

    Raises:
        ConfigError: the encoder's features are not those of a square of patches.
    """
    (tokens,) = subject.patch_batches(subject.splits.train.images[torch.arange(1)])
    num_patches = tokens.shape[1]
    if math.isqrt(num_patches) ** 2 != num_patches:
        raise ConfigError(
            f"the probe segmentation needs the features of a square of patches, and this encoder gives {num_patches} "
            "for an image; leave the probe out",
            keys=["additional", "method"],
        )
    return tokens.shape[2]


def _maps_of(split: ImageSplit) -> LabelMaps:
    assert split.maps is not None, "`check` refuses images without label maps"
    return split.maps


def upsampled(patches: Tensor, side: int) -> Tensor:
    """Values of patches as values of pixels, by bilinear interpolation between the patches' centres.

    Args:
        patches: [b, N, C], row by row. side: height and width in pixels.
    Returns:
        [b, C, side, side].
    """
    rows = math.isqrt(patches.shape[1])
    return F.interpolate(patches.mT.unflatten(2, (rows, rows)), (side, side), mode="bilinear")


class _Descent:
    """Linear heads of standardised patch features, trained side by side on the same batches.

    Args:
        tokens: [n, N * D] float32, mapped. maps: of the same images, one part of them after another.
    """

    def __init__(
        self, subject: Subject, params: SegmentationParams, tokens: np.ndarray, maps: Sequence[LabelMaps], width: int
    ) -> None:
        self.params, self.tokens, self.width = params, tokens, width
        self.device, self.seed, self.images_at_once = subject.device, subject.seed, subject.batch_size
        self.num_classes = len(maps[0].names)
        self.labels = torch.cat([part for each in maps for part in each.split(subject.batch_size)])  # [n, H, W] uint8
        mean, std = column_statistics(tokens.reshape(-1, width))
        # A feature that is the same everywhere is left as it is: dividing by its spread would make it rounding noise.
        spread = np.where(std > 1e-6 * np.abs(mean).max(initial=1e-6), std, 1.0)
        self.mean, self.spread = (torch.from_numpy(each).float().to(self.device) for each in (mean, spread))

    def fit_and_count(self, rates: Sequence[float], held_out: np.ndarray, maps: LabelMaps) -> list[PixelCounts]:
        """What a head of each rate predicts for other images."""
        heads = self._fit(rates)
        counts, size = [PixelCounts(self.num_classes, self.device) for _ in rates], self.images_at_once
        with torch.no_grad():
            for start, truth in zip(range(0, len(held_out), size), maps.split(size), strict=True):
                tokens, labels = self._standardised(held_out[start : start + size]), truth.to(self.device)
                for counted, (weight, bias) in zip(counts, heads, strict=True):
                    counted.add(labels, upsampled(tokens @ weight + bias, labels.shape[-1]).argmax(dim=1))
        return counts

    def _fit(self, rates: Sequence[float]) -> list[list[Tensor]]:
        """Weight [D, C] and bias [C] of a head for each rate; they begin at zero, the problem being convex."""
        heads = [[self._zeros(self.width, self.num_classes), self._zeros(self.num_classes)] for _ in rates]
        adam = torch.optim.Adam([{"params": head} for head in heads])
        batch_size = min(self.params.batch_size, len(self.tokens))
        order = BatchOrder(len(self.tokens), batch_size, build_generator(self.seed, "segmentation order"))
        total = self.params.epochs * order.steps_per_epoch
        for step in range(total):
            rows = order.next().sort().values  # in the order of the file
            tokens, labels = self._standardised(self.tokens[rows.numpy()]), self.labels[rows].to(self.device).long()
            adam.zero_grad()
            for (weight, bias), rate, group in zip(heads, rates, adam.param_groups, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * step / total)) / 2
                pixel_loss(upsampled(tokens @ weight + bias, labels.shape[-1]), labels).backward()
            adam.step()
        return heads

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device, requires_grad=True)

    def _standardised(self, tokens: np.ndarray) -> Tensor:
        """[b, N, D] on the device."""
        features = torch.from_numpy(np.array(tokens)).to(self.device)
        return (features.unflatten(1, (-1, self.width)) - self.mean) / self.spread


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels that are not ignored; 0 where all are.

    Args:
        logits: [b, C, H, W]. labels: [b, H, W] int64.
    """
    summed = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return summed / (labels != IGNORED).sum().clamp(min=1)
