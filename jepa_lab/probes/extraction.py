"""How a frozen encoder is run over a whole data set: how many images at once, and in which precision."""

from __future__ import annotations

import contextlib
import logging

import torch
from torch import Tensor, nn

from jepa_lab.data.images import Images, to_tensor
from jepa_lab.probes.features import Autocast, extract_features

logger = logging.getLogger(__name__)

_IMAGES_AT_ONCE = 512
_MOST_IMAGES_AT_ONCE = 8192
_VALUES_AT_ONCE = 1 << 26
"""Patches times width that pass through a GPU together: a quarter of a GiB in single precision, and four times as much
in the widest layer."""

_LARGEST_NOISE = 0.02
"""Rounding may change a feature by this share of its spread over images. Measured on digits: 0.006."""


def images_at_once(given: int | None, device: torch.device, values_per_image: int) -> int:
    """The batch size of an extraction.

    A CPU gains nothing from more than 512; a GPU is busy only with many small images, or few large ones.

    Args:
        given: `probe.batch_size`. values_per_image: patches times the encoder's width; 0 for raw pixels.
    """
    if given is not None:
        return given
    if device.type == "cpu":
        return _IMAGES_AT_ONCE
    return min(_MOST_IMAGES_AT_ONCE, max(_IMAGES_AT_ONCE, _VALUES_AT_ONCE // max(1, values_per_image)))


def frozen_autocast(
    half: Autocast | None,
    encoder: nn.Module,
    images: Images,
    mean: Tensor,
    std: Tensor,
    num_layers: int,
    device: torch.device,
) -> Autocast:
    """The context of a frozen encoder's passes: half precision where it changes next to nothing.

    The residual stream and the last norm stay in single precision, and a mean over patches averages rounding away. But
    features of two images can differ by a thousandth of their size, and bfloat16 rounds at four thousandths: so both
    are computed for a few images first, and what differs between images must be 50 times as large as what rounding
    changes about it.

    Args:
        half: half precision; None to compute in full.
        images: of the training split; the first 512 are looked at. Others as for `extract_features`.
    """
    if half is None:
        return contextlib.nullcontext
    few = to_tensor(images[torch.arange(min(len(images), _IMAGES_AT_ONCE))])
    arguments = (encoder, few, mean, std, num_layers, _IMAGES_AT_ONCE, device)
    full, rounded = extract_features(*arguments).double(), extract_features(*arguments, half).double()
    # A shift that all images share is none that a probe can see.
    noise = ((rounded - full).std(dim=0, correction=0).mean() / full.std(dim=0, correction=0).mean()).item()
    if noise <= _LARGEST_NOISE:  # not so for the NaN of features that are all the same
        return half
    logger.info(
        "features are extracted in full precision: rounding to half would change them by %.2g of their spread", noise
    )
    return contextlib.nullcontext
