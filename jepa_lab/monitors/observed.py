"""What a monitor is given: an encoder, and images to look at through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from jepa_lab.data.images import Images
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.maskers.patches import Patches, mean_of_valid
from jepa_lab.maskers.sampling import MaskSampler
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.monitors.spectrum import singular_values
from jepa_lab.probes.features import evaluation_mode, extract_features, patch_features, require_finite
from jepa_lab.randomness import build_generator


@dataclass(frozen=True)
class Observed:
    """An encoder, and images to look at through it. What several monitors need is computed once, in full precision.

    Attributes:
        encoder: on `device`, for the grid of `sampler`'s masker.
        images: [n, C, H, W] uint8, not augmented.
        mean, std: [C] of pixels in [0, 1].
        batch_size: images in one forward pass.
        sampler: draws the masks that the run trains with.
        masked_at_once: images whose masks are drawn together, on which some kinds of `context_batching` depend.
        seed: the only source of randomness; it is none of the run's generators.
    """

    encoder: VisionTransformer
    images: Images
    mean: Tensor
    std: Tensor
    batch_size: int
    device: torch.device
    sampler: MaskSampler
    masked_at_once: int
    seed: int

    def spread(self, count: int) -> Observed:
        """The same with `count` of the images, evenly spaced: files often come sorted by class."""
        available = len(self.images)
        if count >= available:
            return self
        return replace(self, images=self.images[torch.arange(count) * available // count])

    @cached_property
    def patches(self) -> Tensor:
        """Last-block features of each patch, [n, N, D] float32 on `device`; for few images.

        Raises:
            RunStopped: a feature is not finite.
        """
        return patch_features(self.encoder, self.images, self.mean, self.std, self.batch_size, self.device)

    @cached_property
    def features(self) -> Tensor:
        """Last-block features of each image, averaged over its patches, [n, D] float32.

        Raises:
            RunStopped: a feature is not finite.
        """
        if "patches" in vars(self):
            return self.patches.mean(dim=1)
        return extract_features(self.encoder, self.images, self.mean, self.std, 1, self.batch_size, self.device)

    @cached_property
    def singular_values(self) -> Tensor:
        """Of `features`, [min(n, D)] float64 on the CPU, largest first."""
        return singular_values(self.features, self.device, centred=False)

    @cached_property
    def centred_singular_values(self) -> Tensor:
        """The same with the mean over images taken off: the roots of n times the covariance's eigenvalues."""
        return singular_values(self.features, self.device, centred=True)

    def masked_views(self, num_views: int) -> Iterator[Tensor]:
        """Features of each image as the context encoder sees it: of random contexts alone, averaged over their patches.

        The masks are the run's own, each time those of the first context view; for every seed and at every epoch the
        same.

        Yields:
            [b, num_views, D] float32 on `device`, of one batch of images after another.
        Raises:
            RunStopped: a feature is not finite.
        """
        generator = build_generator(self.seed, "monitored views")
        mean, std = self.mean.to(self.device), self.std.to(self.device)
        for images in self.images.split(self.masked_at_once):
            normalised = normalize(to_float(images.to(self.device)), mean, std)  # [b, C, H, W]
            contexts = [self.sampler.sample(len(images), generator).context for _ in range(num_views)]
            found = [self._pooled(normalised, first_view(context)) for context in contexts]
            yield require_finite(torch.stack(found, dim=1))

    @torch.no_grad()
    def _pooled(self, images: Tensor, context: Patches) -> Tensor:
        """Features [b, D] of images of which only some patches, [b, K], are encoded."""
        found = []
        with evaluation_mode(self.encoder):
            for start in range(0, len(images), self.batch_size):
                rows = slice(start, start + self.batch_size)
                patches = context[rows].to(self.device)
                found.append(mean_of_valid(self.encoder(images[rows], patches).float(), patches.valid))
        return torch.cat(found)


def first_view(context: Patches) -> Patches:
    """Of contexts [B, E, K] the first view of each image, [B, K]."""
    return Patches(context.indices[:, 0], None if context.valid is None else context.valid[:, 0])
