"""An encoder taken apart: sizes, weights and positions as tensors, for libraries that know nothing of jepa-lab."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.models.layer_scale import LayerScale
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import LAYER_NORM_EPS, VisionTransformer
from jepa_lab.positions.learned import resample
from jepa_lab.positions.sincos import sincos_2d

_POSITION = "position."


@dataclass(frozen=True)
class EncoderParts:
    """What an encoder is made of, on the CPU in single precision.

    Attributes:
        weights: by their names in `VisionTransformer`, without positions.
        positions: [N, D], added to the tokens; None where nothing is added.
        rotation: cosines and sines for queries and keys, each [N, head_dim]; None where nothing is rotated.
        prefix: [P, D], tokens before the patches, their positions included, such as a class token; P may be 0.
        layer_norm_eps: added to variances.
        has_layer_scale: whether the blocks' branches have learned factors.
        mean, std: [C] of pixels in [0, 1], by which images are normalised.
        crop_fraction: side of the square that the encoder sees, over what the shorter side of a picture is resized to.
    """

    size: ModelSize
    grid: Grid
    patch_size: int
    weights: dict[str, Tensor]
    positions: Tensor | None
    rotation: tuple[Tensor, Tensor] | None
    prefix: Tensor
    layer_norm_eps: float
    has_layer_scale: bool
    mean: Tensor
    std: Tensor
    crop_fraction: float

    @property
    def num_channels(self) -> int:
        """C of the images."""
        return len(self.mean)

    @property
    def hidden_dim(self) -> int:
        """Width of the MLPs' hidden layer."""
        return len(self.weights["blocks.0.mlp.fc1.bias"])

    @property
    def position_table(self) -> Tensor:
        """[N, D], for libraries that always add one: zeros where nothing is added."""
        return torch.zeros(self.grid.num_patches, self.size.embed_dim) if self.positions is None else self.positions

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self.grid.height * self.patch_size, self.grid.width * self.patch_size


@torch.no_grad()
def take_apart(encoder: VisionTransformer, mean: Tensor, std: Tensor, crop_fraction: float) -> EncoderParts:
    """The parts of an encoder that lies on the CPU; the tensors are its own.

    What a position embedding adds is found by adding it to zeros, whatever its class.
    """
    weights = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith(_POSITION)}
    everywhere = torch.arange(encoder.grid.num_patches)[None]
    zeros = torch.zeros(1, encoder.grid.num_patches, encoder.size.embed_dim)
    positions = encoder.position.add(zeros, everywhere)[0]
    rotation = encoder.position.rotation(everywhere)
    return EncoderParts(
        size=encoder.size,
        grid=encoder.grid,
        patch_size=encoder.patch_embed.patch_size,
        weights=weights,
        positions=positions if positions.any() else None,
        rotation=None if rotation is None else (rotation[0][0, 0].clone(), rotation[1][0, 0].clone()),
        prefix=torch.zeros(0, encoder.size.embed_dim),
        layer_norm_eps=LAYER_NORM_EPS,
        has_layer_scale=any(isinstance(part, LayerScale) for part in encoder.modules()),
        mean=mean,
        std=std,
        crop_fraction=crop_fraction,
    )


def at_grid(parts: EncoderParts, grid: Grid) -> EncoderParts:
    """The encoder for images of another grid of patches: its positions resampled.

    Raises:
        ConfigError: it rotates queries and keys by positions, and does not say by which on another grid.
    """
    if grid == parts.grid:
        return parts
    if parts.rotation is not None:
        raise ConfigError(
            f"the encoder has rotary positions for a grid of {parts.grid} patches, which cannot be resampled to one of "
            f"{grid}; probe it at its own image size, {parts.image_size[0]} px"
        )
    positions = None if parts.positions is None else resample(parts.positions, parts.grid, grid)
    return replace(parts, grid=grid, positions=positions)


def untrained_parts(parts: EncoderParts, generator: torch.Generator) -> EncoderParts:
    """The same architecture with random weights, the control of what training has added.

    Matrices and tables get the truncated normal of a new encoder, biases 0 and norms 1; layer scales keep their values,
    and so do positions that are fixed ones.
    """

    def drawn(tensor: Tensor) -> Tensor:
        return nn.init.trunc_normal_(torch.empty_like(tensor), std=0.02, generator=generator)

    def untrained(name: str, tensor: Tensor) -> Tensor:
        if name.endswith(".gamma"):
            return tensor
        if name.endswith("bias"):
            return torch.zeros_like(tensor)
        return torch.ones_like(tensor) if tensor.ndim == 1 else drawn(tensor)

    weights = {name: untrained(name, tensor) for name, tensor in parts.weights.items()}
    positions = parts.positions
    if positions is not None and not is_sincos(positions, parts.grid):
        positions = drawn(positions)
    return replace(parts, weights=weights, positions=positions, prefix=drawn(parts.prefix))


def is_sincos(positions: Tensor, grid: Grid) -> bool:
    """Whether a table [N, D] is the fixed sine-cosine embedding of the grid."""
    return positions.shape[1] % 4 == 0 and torch.allclose(
        positions.double(), sincos_2d(grid, positions.shape[1]), atol=1e-4
    )
