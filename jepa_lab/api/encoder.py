"""`jepa_lab.load_encoder`: any encoder that jepa-lab can read, as a module that takes images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from jepa_lab.api.errors import explained_errors
from jepa_lab.api.inputs import check_choice
from jepa_lab.config.loading import load_plugins
from jepa_lab.data.any_images import SquareForm
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.errors import ConfigError, DataError
from jepa_lab.grid import Grid
from jepa_lab.probes.settings import LAYERS
from jepa_lab.weights.encoder_parts import EncoderParts, at_grid
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.plain import describe, parts_of_plain, plain_encoder_of
from jepa_lab.weights.sources import WEIGHT_SOURCES
from jepa_lab.weights.sources.base import SourceContext, Which, load_source

if TYPE_CHECKING:
    from jepa_lab.data.any_images import AnyImages

Layers = Literal["last", "last_four"]


class Encoder(nn.Module):
    """An image encoder with all that belongs to it: weights, positions, and how its images are made.

    It is in evaluation mode, and its parameters need no gradient: `requires_grad_(True)` fine-tunes it. It lies on the
    CPU until `.to(device)` moves it.

    Attributes:
        source: where it came from.
        image_size: height and width of the images that it sees, in pixels.
        num_patches: N. num_features: D, the width of the features.
        form: how images become squares of that size.
    """

    def __init__(self, found: ForeignEncoder, layers: Layers = "last") -> None:
        super().__init__()
        parts = found.parts
        self.source = found.source
        self.image_size = parts.image_size
        self.num_patches = parts.grid.num_patches
        self.num_features = parts.size.embed_dim * LAYERS[layers]
        self._left_out, self._num_layers = found.left_out, LAYERS[layers]
        self.form = SquareForm(parts.image_size[0], parts.num_channels, parts.crop_fraction)
        self._description = describe(parts)
        self.vit = plain_encoder_of(parts).requires_grad_(False)
        self.eval()

    def preprocess(self, images: AnyImages) -> Tensor:
        """Images as the encoder wants them: the square in the middle, resized and normalised.

        The shorter side is resized as the source says (`probe.crop_fraction` of a run), bilinear and antialiased.

        Args:
            images: one image, or a list: the path of a file; a picture of Pillow; an array of numpy, uint8, [H, W],
                [H, W, C] or [B, H, W, C]; a tensor, uint8, [C, H, W] or [B, C, H, W].
        Returns:
            [B, C, H, W] floats on the encoder's device; B is 1 for one image.
        Raises:
            DataError: something is no image, or a file cannot be decoded.
        """
        device, dtype = self.vit.mean.device, self.vit.mean.dtype
        pixels = to_float(self.form.squares(images).to(device))
        return normalize(pixels, self.vit.mean.flatten(), self.vit.std.flatten()).to(dtype)

    def encode(self, images: AnyImages) -> Tensor:
        """Features of images, averaged over the patches of each.

        Args:
            images: what `preprocess` gave (a tensor of floats), or what it takes. All of them pass through at once.
        Returns:
            [B, D] on the encoder's device.
        Raises:
            DataError: these are no such images.
        """
        return self.encode_patches(images).mean(dim=1)

    def encode_patches(self, images: AnyImages) -> Tensor:
        """Features of every patch, in raster order: [B, N, D]; arguments and errors as for `encode`."""
        if isinstance(images, Tensor) and images.is_floating_point():
            return self.vit.last_layers(self._checked(images), self._num_layers)
        return self.vit.last_layers(self.preprocess(images), self._num_layers)

    def forward(self, images: AnyImages) -> Tensor:
        """`encode`."""
        return self.encode(images)

    def parts(self) -> EncoderParts:
        """Sizes and present weights, for export and probes; copies on the CPU, in single precision."""
        state = {name: tensor.detach().float().cpu().clone() for name, tensor in self.vit.state_dict().items()}
        return parts_of_plain(self._description, state)

    def as_found(self) -> ForeignEncoder:
        """What the source holds, with the present weights."""
        return ForeignEncoder(self.parts(), self.source, self._left_out, knows_normalization=True)

    def extra_repr(self) -> str:
        """What `print` says beside the layers."""
        return f"source={self.source!r}, image_size={self.image_size}, num_features={self.num_features}"

    def _checked(self, images: Tensor) -> Tensor:
        expected = (self.form.channels, *self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise DataError(
                f"images must be [B, {', '.join(map(str, expected))}], as preprocess gives them, got "
                f"{list(images.shape)}; call encode with the images themselves, or with preprocess(images)"
            )
        return images


def load_encoder(
    source: str | os.PathLike[str],
    *,
    encoder: Which = "target",
    step: int | None = None,
    layers: Layers = "last",
    image_size: int | None = None,
    channel_mean: Sequence[float] | None = None,
    channel_std: Sequence[float] | None = None,
    runs: str | os.PathLike[str] = "runs",
    uri: str | None = None,
) -> Encoder:
    """The encoder of a run, an export, MLflow, a released checkpoint, timm or transformers.

    Args:
        source: the name of a run below `runs`, or its folder; a folder that `jepa-lab export` wrote; `models:/...` or
            `runs:/...` of MLflow; a released I-JEPA checkpoint; a folder or file of timm or transformers; the name of a
            model in the cache of the Hugging Face hub. Nothing is downloaded but from MLflow.
        encoder: which one, of a source that holds both.
        step: of the checkpoint, of a run; by default the last one.
        layers: `last_four` puts the features of the last four blocks side by side.
        image_size: height and width in pixels to see images at, by default the source's; positions are resampled.
        channel_mean, channel_std: of pixels in [0, 1], for a source that does not say how its images were normalised.
        runs: folder of the run folders.
        uri: MLflow's tracking URI; by default the usual one.
    Raises:
        ConfigError: there is no such source, or its encoder cannot be used; the message says why, and what to do.
        RunFolderError: the run has no such checkpoint, or it is damaged.
    """
    check_choice("encoder", encoder, get_args(Which))
    check_choice("layers", layers, tuple(LAYERS))
    with explained_errors(load_encoder):
        load_plugins([])  # a package may bring a kind of source
        assert WEIGHT_SOURCES.names(), "sources register on import"
        found = load_source(os.fspath(source), SourceContext((Path(runs),), uri=uri, encoder=encoder, step=step))
        found = _with_statistics(found, channel_mean, channel_std)
        found = replace(found, parts=_at_size(found, image_size))
        _check_layers(found, layers)
        return Encoder(found, layers)


def _with_statistics(
    found: ForeignEncoder, mean: Sequence[float] | None, std: Sequence[float] | None
) -> ForeignEncoder:
    """Raises:
    ConfigError: nobody says how images are normalised, or of another number of channels.
    """
    if mean is None and std is None:
        if found.knows_normalization:
            return found
        raise ConfigError(
            f"{found.source} does not say how its images were normalised; give channel_mean and channel_std, of "
            "pixels in [0, 1], as it was trained with"
        )
    channels = found.parts.num_channels
    for name, values in (("channel_mean", mean), ("channel_std", std)):
        if values is None or len(values) != channels or (name == "channel_std" and min(values) <= 0):
            raise ConfigError(
                f"{name} must be {channels} number(s), one per channel{', above 0' if name == 'channel_std' else ''}, "
                f"got {values if values is None else list(values)}; {found.source} sees images of {channels} channel(s)"
            )
    means, deviations = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
    return replace(found, parts=replace(found.parts, mean=means, std=deviations), knows_normalization=True)


def _at_size(found: ForeignEncoder, image_size: int | None) -> EncoderParts:
    """Raises:
    ConfigError: patches do not divide the size, or positions cannot be resampled.
    """
    parts = found.parts
    if image_size is None:
        if parts.grid.height != parts.grid.width:
            raise ConfigError(
                f"{found.source} sees images of {parts.image_size[0]}x{parts.image_size[1]} px, and only squares are "
                "cut out of pictures; give image_size"
            )
        return parts
    if image_size < 1 or image_size % parts.patch_size:
        near = max(1, round(image_size / parts.patch_size)) * parts.patch_size
        raise ConfigError(
            f"image_size must be a multiple of {parts.patch_size} px, the patches of {found.source}, got {image_size}; "
            f"{near} is the nearest"
        )
    side = image_size // parts.patch_size
    return at_grid(parts, Grid(side, side))


def _check_layers(found: ForeignEncoder, layers: Layers) -> None:
    """Raises:
    ConfigError: the encoder has fewer blocks.
    """
    if found.parts.size.depth < LAYERS[layers]:
        raise ConfigError(
            f"layers={layers} reads {LAYERS[layers]} blocks, and {found.source} has {found.parts.size.depth}; use "
            "layers=last"
        )
