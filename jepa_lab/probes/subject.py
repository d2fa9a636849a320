"""What is probed: an encoder or raw pixels, on labelled images, with features that all probes share."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import Images
from jepa_lab.data.resident import to_float
from jepa_lab.probes.extraction import frozen_autocast
from jepa_lab.probes.feature_file import stored_features
from jepa_lab.probes.features import (
    Autocast,
    Labelled,
    extract_features,
    feature_batches,
    pixel_patches,
    pooled_pixels,
    raw_pixel_features,
    raw_pixel_tokens,
    token_batches,
    tokens_of,
)
from jepa_lab.probes.splits import ProbeSplits, labels_of

_BYTES_IN_MEMORY = 1 << 32
"""Most features that a probe holds in memory if it can also read them from a file."""


@dataclass(frozen=True)
class LabelledSplits:
    """Features of the splits, in memory.

    Attributes:
        test: None where there is no labelled test split.
    """

    train: Labelled
    validation: Labelled
    test: Labelled | None


@dataclass(frozen=True)
class Subject:
    """One row of the table: what every probe gets.

    Attributes:
        encoder: on `device`, with `last_layers(images, num_layers)`; None for raw pixels, the control.
        num_layers: of the encoder's last blocks, whose features stand side by side.
        depth: how many blocks the encoder has.
        patch_size: of the encoder, in pixels.
        batch_size: images in one forward pass of a frozen encoder.
        seed: of the run; the only source of randomness.
        scratch: folder for files that are gone when the probe ends.
        autocast: of the passes of an encoder that is trained.
        half: of the passes of a frozen encoder, where it changes next to nothing; None measures in full precision.
    """

    splits: ProbeSplits
    encoder: nn.Module | None
    num_layers: int
    depth: int
    patch_size: int
    batch_size: int
    device: torch.device
    seed: int
    scratch: Path
    autocast: Autocast = contextlib.nullcontext
    half: Autocast | None = None

    @cached_property
    def features(self) -> LabelledSplits:
        """Of every image, extracted once, when the first probe asks for them."""
        return self.layer_features(self.num_layers)

    @contextlib.contextmanager
    def bounded_features(self) -> Iterator[LabelledSplits]:
        """`features`, or the same mapped from a file in `scratch` where they would not be small in memory."""
        splits = self.splits
        parts = [part for part in (splits.train, splits.validation, splits.test) if part is not None]
        sizes, labels = [len(part) for part in parts], [labels_of(part) for part in parts]
        if "features" in vars(self) or self._bytes_per_image() * sum(sizes) <= _BYTES_IN_MEMORY:
            yield self.features  # they are there, or small
            return
        batches = itertools.chain.from_iterable(self.feature_batches(part.images) for part in parts)
        with stored_features(batches, self.scratch) as stored, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and is not written to
            train, validation, *test = zip(torch.from_numpy(stored).split(sizes), labels, strict=True)
            yield LabelledSplits(train, validation, test[0] if test else None)

    def _bytes_per_image(self) -> int:
        """Of its features."""
        (features,) = self.feature_batches(self.splits.train.images[torch.arange(1)])
        return features.nbytes

    def patch_batches(self, images: Images) -> Iterator[Tensor]:
        """`token_batches`, of raw pixels those of the encoder's patches."""
        if self.encoder is not None:
            yield from self.token_batches(images)
            return
        for part in images.split(self.batch_size):
            yield pixel_patches(to_float(part.to(self.device)), self.patch_size)

    def layer_features(self, num_layers: int) -> LabelledSplits:
        """Features of the last `num_layers` blocks side by side, [n, num_layers * D]; not kept."""

        def labelled(split: ImageSplit) -> Labelled:
            return self._extract(split.images, num_layers), labels_of(split)

        splits = self.splits
        test = None if splits.test is None else labelled(splits.test)
        return LabelledSplits(labelled(splits.train), labelled(splits.validation), test)

    @cached_property
    def frozen_autocast(self) -> Autocast:
        """The context of the passes of a frozen encoder."""
        assert self.encoder is not None, "raw pixels pass through nothing"
        splits = self.splits
        few = (splits.train.images, splits.mean, splits.std, self.num_layers, self.device)
        return frozen_autocast(self.half, self.encoder, *few)

    def _extract(self, images: Images, num_layers: int) -> Tensor:
        if self.encoder is None:
            return raw_pixel_features(images)
        mean, std = self.splits.mean, self.splits.std
        arguments = (self.batch_size, self.device, self.frozen_autocast)
        return extract_features(self.encoder, images, mean, std, num_layers, *arguments)

    def feature_batches(self, images: Images) -> Iterator[Tensor]:
        """The same features batch by batch, [b, D'] float32 on the CPU, for what does not fit into memory."""
        if self.encoder is None:
            yield from map(raw_pixel_features, images.split(self.batch_size))
            return
        mean, std = self.splits.mean, self.splits.std
        arguments = (self.batch_size, self.device, self.frozen_autocast)
        yield from feature_batches(self.encoder, images, mean, std, self.num_layers, *arguments)

    def token_batches(self, images: Images) -> Iterator[Tensor]:
        """Patch tokens batch by batch, [b, N, D'] float32 on the device; of raw pixels patches of them."""
        if self.encoder is None:
            yield from (raw_pixel_tokens(to_float(part.to(self.device))) for part in images.split(self.batch_size))
            return
        mean, std = self.splits.mean, self.splits.std
        arguments = (self.batch_size, self.device, self.frozen_autocast)
        yield from token_batches(self.encoder, images, mean, std, self.num_layers, *arguments)

    def tokens_of(self, images: Tensor) -> Tensor:
        """The same of one batch of images [b, C, H, W] float32 in [0, 1] on the device."""
        if self.encoder is None:
            return raw_pixel_tokens(images)
        mean, std = (statistic.to(self.device) for statistic in (self.splits.mean, self.splits.std))
        return tokens_of(self.encoder, images, mean, std, self.num_layers, self.frozen_autocast)

    def features_of(self, images: Tensor) -> Tensor:
        """Features [b, D'] float32 of one batch of images [b, C, H, W] float32 in [0, 1], all on the device."""
        return pooled_pixels(images) if self.encoder is None else self.tokens_of(images).mean(dim=1)
