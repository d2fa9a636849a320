"""Features of frozen encoders: extracted once, in evaluation mode, without gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_lab.data.images import Images
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.errors import RunStopped

RAW_PIXEL_SIDE = 32
"""Raw pixels are pooled to at most this height and width: those of CIFAR, beyond which a linear probe only slows."""

_RAW_PIXEL_PATCH = 4
"""Side of the patches that are tokens of raw pixels."""

Labelled = tuple[Tensor, Tensor]
"""Features [n, D'] float32 and their labels [n] int64, both on the CPU."""

Autocast = Callable[[], contextlib.AbstractContextManager[object]]
"""Makes the context in which forward passes run."""


def extract_features(
    encoder: nn.Module,
    images: Images,
    mean: Tensor,
    std: Tensor,
    num_layers: int,
    batch_size: int,
    device: torch.device,
    autocast: Autocast = contextlib.nullcontext,
) -> Tensor:
    """Features of each image, averaged over its patches.

    Args:
        encoder: has `last_layers(images, num_layers)` -> [B, N, num_layers * D].
        images: [n, C, H, W] uint8, on any device.
        mean: [C] of pixels in [0, 1]. std: [C].
        num_layers: how many of the last blocks stand side by side.
        batch_size: images in one forward pass.
        device: where the encoder is.
        autocast: of the forward pass, see `jepa_lab.probes.extraction.frozen_autocast`; full precision by default.
    Returns:
        [n, num_layers * D] float32 on the CPU.
    Raises:
        RunStopped: if a feature is not finite.
    """
    batches = _encoded(encoder, images, (mean, std), num_layers, batch_size, device, autocast)
    return require_finite(torch.cat([tokens.float().mean(dim=1).cpu() for tokens in batches]))


def feature_batches(
    encoder: nn.Module,
    images: Images,
    mean: Tensor,
    std: Tensor,
    num_layers: int,
    batch_size: int,
    device: torch.device,
    autocast: Autocast = contextlib.nullcontext,
) -> Iterator[Tensor]:
    """`extract_features` one batch after another, [b, num_layers * D] float32 on the CPU."""
    for tokens in _encoded(encoder, images, (mean, std), num_layers, batch_size, device, autocast):
        yield require_finite(tokens.float().mean(dim=1).cpu())


def patch_features(
    encoder: nn.Module,
    images: Images,
    mean: Tensor,
    std: Tensor,
    batch_size: int,
    device: torch.device,
    autocast: Autocast = contextlib.nullcontext,
) -> Tensor:
    """Last-block features of each patch, for the monitors; arguments as for `extract_features`.

    Returns:
        [n, N, D] float32 on `device`.
    Raises:
        RunStopped: if a feature is not finite.
    """
    batches = _encoded(encoder, images, (mean, std), 1, batch_size, device, autocast)
    return require_finite(torch.cat([tokens.float() for tokens in batches]))


def token_batches(
    encoder: nn.Module,
    images: Images,
    mean: Tensor,
    std: Tensor,
    num_layers: int,
    batch_size: int,
    device: torch.device,
    autocast: Autocast = contextlib.nullcontext,
) -> Iterator[Tensor]:
    """Features of each patch batch by batch, [b, N, num_layers * D] float32 on `device`; arguments as above."""
    for tokens in _encoded(encoder, images, (mean, std), num_layers, batch_size, device, autocast):
        yield require_finite(tokens.float())


def tokens_of(
    encoder: nn.Module, images: Tensor, mean: Tensor, std: Tensor, num_layers: int, autocast: Autocast
) -> Tensor:
    """Features of each patch of one batch, [b, N, num_layers * D] float32, where the images and the encoder are.

    Args:
        images: [b, C, H, W] float32 in [0, 1].
    Raises:
        RunStopped: if a feature is not finite.
    """
    with evaluation_mode(encoder), torch.no_grad(), autocast():
        tokens = encoder.last_layers(normalize(images, mean, std), num_layers)  # type: ignore[operator]
    return require_finite(tokens.float())


def require_finite(features: Tensor) -> Tensor:
    """The features [n, ...], if all are finite.

    Raises:
        RunStopped: if one is not.
    """
    finite = torch.isfinite(features).flatten(1).all(dim=1)  # [n]
    if not finite.all():
        raise RunStopped(
            f"the encoder's features of {int((~finite).sum())} of {len(features)} images are not finite, so they "
            "cannot be measured; lower optimizer.learning_rate, or use training.precision=fp32"
        )
    return features


def raw_pixel_features(images: Images) -> Tensor:
    """The pixels themselves, average-pooled to at most 32x32: the control that no encoder needs to be built for.

    Args:
        images: [n, C, H, W] uint8.
    Returns:
        [n, C * min(H, 32) * min(W, 32)] float32 in [0, 1], on the CPU.
    """
    # In parts, or the float copy of large images would be many times the size of the result.
    return torch.cat([pooled_pixels(to_float(part)).cpu() for part in images.split(256)])


def pooled_pixels(images: Tensor) -> Tensor:
    """`raw_pixel_features` of images [b, C, H, W] float32 in [0, 1], where they are."""
    size = (min(images.shape[2], RAW_PIXEL_SIDE), min(images.shape[3], RAW_PIXEL_SIDE))
    return F.adaptive_avg_pool2d(images, size).flatten(1)


def raw_pixel_tokens(images: Tensor) -> Tensor:
    """Patches of the pixels themselves, average-pooled as in `raw_pixel_features`, each with its row and column.

    A token of an encoder knows where it is; so must a patch of pixels, or the control would be a bag of patches.

    Args:
        images: [b, C, H, W] float32 in [0, 1].
    Returns:
        [b, N, C * p * p + rows + columns] float32 where the images are, with p = 4 or the side where it is smaller:
        the pixels of a patch, then a one for its row and one for its column.
    """
    side = min(*images.shape[2:], RAW_PIXEL_SIDE)
    patch = min(_RAW_PIXEL_PATCH, side)
    across = side // patch
    pooled = F.adaptive_avg_pool2d(images, (across * patch, across * patch))
    return pixel_patches(pooled, patch)


def pixel_patches(images: Tensor, patch: int) -> Tensor:
    """Each patch of the pixels themselves, with its row and column: the control of probes that look at patches.

    Args:
        images: [b, C, H, H] float32. patch: side of a patch, p, in pixels; it divides H.
    Returns:
        [b, N, C * p * p + rows + columns]: the pixels of a patch, then a one for its row and one for its column.
    """
    across = images.shape[-1] // patch
    pixels = F.unfold(images, patch, stride=patch).transpose(1, 2)  # [b, N, C * p * p]
    ones = torch.eye(across, device=images.device)
    places = torch.cat([ones.repeat_interleave(across, dim=0), ones.repeat(across, 1)], dim=1)  # [N, 2 * across]
    return torch.cat([pixels, places.expand(len(images), -1, -1)], dim=2)


@torch.no_grad()
def _encoded(
    encoder: nn.Module,
    images: Images,
    statistics: tuple[Tensor, Tensor],
    num_layers: int,
    batch_size: int,
    device: torch.device,
    autocast: Autocast,
) -> Iterator[Tensor]:
    """Patch features [B, N, num_layers * D] of one batch after another."""
    mean, std = (statistic.to(device) for statistic in statistics)
    with evaluation_mode(encoder):
        for batch in images.split(batch_size):
            on_device = batch.to(device, non_blocking=device.type == "cuda")
            normalised = normalize(to_float(on_device), mean, std)  # [B, C, H, W]
            with autocast():
                tokens = encoder.last_layers(normalised, num_layers)  # type: ignore[operator]
            yield tokens


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off, then give every submodule back the mode it had."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, mode in modes:
            submodule.training = mode
