"""The attentive probe: a learned query attends to the patch tokens of the frozen encoder."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jepa_lab.errors import Key
from jepa_lab.probes.attentive_heads import AttentiveHeads, TokenScaling
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.decorrelation import principal_components
from jepa_lab.probes.finetune import warmup_cosine
from jepa_lab.probes.grids import OpenGrid
from jepa_lab.probes.heads import summed_cross_entropy
from jepa_lab.probes.predictions import Predictions
from jepa_lab.probes.rate_search import RateSearch, Setting
from jepa_lab.probes.scores import NO_TEST, score_predictions
from jepa_lab.probes.splits import labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.probes.tokens import Tokens, tokens_of_splits
from jepa_lab.randomness import build_generator
from jepa_lab.registry import ComponentParams, broken_rule

RATES = OpenGrid((0.001, 0.003, 0.01), lower=(3e-4, 1e-4, 3e-5, 1e-5), higher=(0.03, 0.1, 0.3, 1.0))
_MOST_IN_A_BATCH = 256
_STEPS_PER_EPOCH = 16
_SMALLEST_STD = 1e-12
_RIDGE = 0.01
"""Of the decorrelation of what is pooled. On digits 1e-4, 0.01 and 1 give the same accuracy within a point."""
_IMAGES_FOR_SCALES = 1 << 14
"""Images that the scales of tokens are computed from, evenly spaced: more would change no accuracy."""


class AttentiveParams(ComponentParams):
    """The attention, the grid and the length of the training."""

    num_heads: int = Field(
        8, ge=1, strict=True, description="Heads of the attention; each is as wide as the tokens divided by them."
    )
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        min_length=1,
        description="Peaks of AdamW's learning rate, increasing; a probe is trained with each, all on the same "
        "batches, and the validation split chooses one. Null: 0.001 to 0.01, and on from there to at least 1e-5 and at "
        "most 1 while the best one lies at an end.",
    )
    weight_decays: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.01, 1.0),
        min_length=1,
        description="AdamW's weight decays, increasing; every learning rate is tried with every one of them.",
    )
    epochs: int = Field(
        30, ge=1, le=10_000, strict=True, description="Passes over the images. The weights after the last one count."
    )
    warmup_fraction: float = Field(
        0.1, ge=0, le=1, description="Share of the steps in which the learning rate rises; then half a cosine to 0."
    )
    batch_size: int | None = Field(
        None,
        ge=2,
        strict=True,
        description="Images in a step. Null: 256, or fewer where an epoch would have less than 16 steps.",
    )

    @model_validator(mode="after")
    def _check(self) -> AttentiveParams:
        for name, values in (("learning_rates", self.learning_rates or ()), ("weight_decays", self.weight_decays)):
            if any(low >= high for low, high in itertools.pairwise(values)):
                raise broken_rule(Key(name), f" must be increasing without repetition, got {values}")
        return self

    def images_in_a_batch(self, num_images: int) -> int:
        """Of so many images to train on."""
        wanted = self.batch_size or min(_MOST_IN_A_BATCH, max(2, num_images // _STEPS_PER_EPOCH))
        return min(wanted, num_images)


@PROBES.register(
    "attentive",
    summary="a learned query attends to the frozen encoder's patch tokens, then a linear classifier; AdamW",
    source="attentive probing of Chen et al. 2022, arXiv:2202.03026 (CAE), and Bardes et al. 2024, arXiv:2404.08471 "
    "(V-JEPA), sec. 4",
)
class Attentive(Probe):
    """Trains one multi-head cross-attention with a single learned query, and a linear head on what it reads.

    I-JEPA has no class token, and the mean over patches, which other probes see, drowns what few patches know. Nothing
    is augmented: tokens are computed once where a file of at most 16 GiB holds them, else in every epoch. The
    validation split chooses learning rate and weight decay; of equal accuracies the largest decay wins, then the
    smallest rate. The epoch is never chosen: weights after the last one count, as the learning rate has come down to
    0. For the test split the probe is trained again on training + validation. Tokens of raw pixels are patches of
    4x4 pixels, at most 8x8 of them, with their row and column.

    Differs from CAE: no class token joins the patches. Differs from V-JEPA: no residual connection and no MLP follow
    the attention, batch norm without affine parameters stands where it has layer norm, and there is no augmentation.
    From both: tokens are first scaled by a linear map (`TokenScaling`), because features of an encoder are so
    correlated that no learning rate suits all their directions.
    """

    Params = AttentiveParams
    params: AttentiveParams
    title = "an attentive probe of frozen patch tokens"

    def run(self, subject: Subject) -> ProbeOutcome:
        splits = subject.splits
        parts = [part for part in (splits.train, splits.validation, splits.test) if part is not None]
        labels = torch.cat([labels_of(part) for part in parts])
        train, fitted = len(splits.train), len(splits.train) + len(splits.validation)
        with tokens_of_splits(subject, parts) as tokens:
            training = _Training(self.params, subject, tokens, labels[:train], num_splits=1)
            search = RateSearch.of(
                lambda settings: training.fit_and_predict(settings, torch.arange(train, fitted)),
                labels[train:fitted],
                self.params.learning_rates,
                self.params.weight_decays,
                RATES,
            )
            best = search.best
            scores, tested = NO_TEST, None
            if splits.test is not None:
                again = _Training(self.params, subject, tokens, labels[:fitted], num_splits=2)
                tested = again.fit_and_predict([best.setting], torch.arange(fitted, len(labels)))[0].numpy()
                scores = score_predictions(labels[fitted:].numpy(), tested, splits.class_names)
        main = Score(best.accuracy, scores.test_accuracy, test_interval=scores.test_interval)
        details = {
            "learning_rate": best.setting.rate,
            "weight_decay": best.setting.shrinkage,
            "validation_accuracy_by_setting": search.accuracies(),
            **vars(scores),
        }
        predictions = Predictions(best.predicted.numpy(), tested)
        return ProbeOutcome((main,), details, search.notes(), search.choice("weight decay"), {"": predictions})


class _Training:
    """Attentive probes of the images of the first splits.

    Args:
        labels: of these images, [n] int64.
    """

    def __init__(
        self, params: AttentiveParams, subject: Subject, tokens: Tokens, labels: Tensor, num_splits: int
    ) -> None:
        self.params, self.tokens, self.labels, self.num_splits = params, tokens, labels, num_splits
        self.seed, self.num_classes = subject.seed, len(subject.splits.class_names)
        self.scaling = token_scaling(tokens, len(labels), subject.device)

    def fit_and_predict(self, settings: Sequence[Setting], numbers: Tensor) -> Tensor:
        """The class of each of the images `numbers` by a probe of each setting, [G, n] int64 on the CPU.

        They begin alike, see the same batches, and do not disturb each other.
        """
        generator = build_generator(self.seed, "attentive heads")
        heads = AttentiveHeads(len(settings), self.params.num_heads, self.num_classes, self.scaling, generator)
        self._fit(heads, settings)
        with torch.no_grad():
            parts = [heads.logits(each, training=False).argmax(dim=2).cpu() for each in self.tokens.of(numbers)]
        return torch.cat(parts, dim=1)

    def _fit(self, heads: AttentiveHeads, settings: Sequence[Setting]) -> None:
        groups = []
        for number, setting in enumerate(settings):
            for parameters, decay in zip(heads.parameter_groups(number), (setting.shrinkage, 0.0), strict=True):
                groups.append({"params": parameters, "peak": setting.rate, "weight_decay": decay})
        optimizer = torch.optim.AdamW(groups)
        size = self.params.images_in_a_batch(len(self.labels))
        total = self.params.epochs * (len(self.labels) // size)
        with self.tokens.batches(self.num_splits, size, "attentive") as take:
            for step in range(total):
                factor = warmup_cosine((step + 0.5) / total, self.params.warmup_fraction)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                tokens, numbers = take()
                loss = summed_cross_entropy(heads.logits(tokens, training=True), self.labels[numbers].to(tokens.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def token_scaling(tokens: Tokens, num_images: int, device: torch.device) -> TokenScaling:
    """How the tokens of the first `num_images` are scaled; see there."""
    numbers = torch.linspace(0, num_images - 1, min(num_images, _IMAGES_FOR_SCALES)).round().long().unique()
    pooled, variances, means, counts = [], [], [], []
    for part in tokens.of(numbers):
        variance, mean = torch.var_mean(part.flatten(0, 1), dim=0, correction=0)
        pooled.append(part.mean(dim=1).cpu())
        variances.append(variance.double().cpu())
        means.append(mean.double().cpu())
        counts.append(len(part))
    shares = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    within, mean = (shares * torch.stack(variances)).sum(dim=0), (shares * torch.stack(means)).sum(dim=0)
    std = (within + (shares * (torch.stack(means) - mean).square()).sum(dim=0)).sqrt()  # [D']
    components = principal_components(torch.cat(pooled).numpy(), device)
    keys = torch.where(std > _SMALLEST_STD, 1 / std.clamp_min(_SMALLEST_STD), 0.0)
    return TokenScaling(components.mean, keys.float().to(device), components.axes * components.scales([_RIDGE])[0])
