"""Positions, and an encoder, on another grid than they were built or trained for."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.errors import ConfigError
from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS, PositionEmbedding
from jepa_lab.positions.learned import LearnedPosition
from jepa_lab.positions.rope import RopeParams, RotaryPosition
from jepa_lab.positions.sincos import SinCosPosition, sincos_2d
from jepa_lab.registry import ComponentParams
from tests.positions import ENCODER_POSITIONS

OLD, NEW = Grid(4, 6), Grid(7, 5)
SIZE = ModelSize(24, 2, 3)


def learned(table: torch.Tensor, grid: Grid) -> LearnedPosition:
    """Positions with these vectors, [Gh, Gw, D]."""
    position = LearnedPosition(ComponentParams(), grid, table.shape[-1], 1)
    position.position_embedding.data = table.flatten(0, 1)
    return position


def build_position(name: str, grid: Grid) -> PositionEmbedding:
    entry = POSITIONS.get(name)
    position = entry.component(entry.params_type(), grid, SIZE.embed_dim, SIZE.num_heads)
    initialize_weights(position, torch.Generator().manual_seed(5))
    return position


def build_encoder(name: str, grid: Grid = OLD) -> VisionTransformer:
    encoder = VisionTransformer(grid, 2, 3, SIZE, build_position(name, grid))
    initialize_weights(encoder, torch.Generator().manual_seed(0))
    return encoder


def test_sincos_on_another_grid_is_computed_for_it() -> None:
    position = SinCosPosition(ComponentParams(), OLD, 24, 3).double().at_grid(NEW)
    out = position.add(torch.zeros(1, 35, 24, dtype=torch.float64), torch.arange(35)[None])
    assert out.dtype == torch.float64
    assert torch.allclose(out[0], sincos_2d(NEW, 24), atol=1e-7)


def test_rope_on_another_grid_turns_by_the_angle_of_each_row_and_column_with_its_own_base() -> None:
    position = RotaryPosition(RopeParams(base=10), OLD, 16, 2).at_grid(NEW)
    cosine, sine = position.rotation(torch.tensor([[NEW.width * 3 + 4]]))  # row 3, column 4
    frequencies = torch.tensor([1.0, 10**-0.5])
    angles = torch.cat([4 * frequencies, 3 * frequencies]).repeat_interleave(2)
    assert torch.allclose(cosine.flatten(), angles.cos(), atol=1e-6)
    assert torch.allclose(sine.flatten(), angles.sin(), atol=1e-6)


@pytest.mark.parametrize("grid", [Grid(7, 5), Grid(2, 3), Grid(14, 2), Grid(1, 1)])
def test_a_constant_learned_position_stays_that_constant(grid: Grid) -> None:
    table = torch.tensor([1.5, -2.0]).expand(4, 6, 2).double()
    out = learned(table, OLD).at_grid(grid).position_embedding
    assert out.shape == (grid.num_patches, 2)
    assert torch.allclose(out, table[0, 0].expand(grid.num_patches, 2), atol=1e-12)


@pytest.mark.parametrize("grid", [Grid(32, 32), Grid(21, 37), Grid(8, 8), Grid(8, 32)])
def test_a_learned_ramp_stays_a_ramp_away_from_the_border(grid: Grid) -> None:
    """Row and column of a patch's centre, in the old grid's units: the same places on another grid."""
    old = Grid(16, 16)
    row, column = old.coordinates()
    out = learned(torch.stack([row, column], dim=1).double().reshape(16, 16, 2), old).at_grid(grid).position_embedding
    row, column = (each.double() for each in grid.coordinates())
    rows, columns = (row + 0.5) * 16 / grid.height - 0.5, (column + 0.5) * 16 / grid.width - 0.5
    reach_down, reach_across = 2 * max(1, 16 / grid.height), 2 * max(1, 16 / grid.width)  # of the kernel
    inside = (rows >= reach_down - 1) & (rows <= 16 - reach_down) & (columns >= reach_across - 1)
    inside &= columns <= 16 - reach_across
    assert inside.any()
    assert torch.allclose(out[inside, 0], rows[inside], atol=1e-9)
    assert torch.allclose(out[inside, 1], columns[inside], atol=1e-9)


def test_a_shrunk_learned_position_is_antialiased() -> None:
    """A chequerboard has no coarse structure: each coarse position is nearly its mean, not one of its fields."""
    row, column = Grid(16, 16).coordinates()
    table = ((row + column) % 2 * 2.0 - 1).reshape(16, 16, 1)
    out = learned(table, Grid(16, 16)).at_grid(Grid(6, 6)).position_embedding.reshape(6, 6)
    assert out[1:-1, 1:-1].abs().max() < 0.05


@pytest.mark.parametrize("position", ENCODER_POSITIONS)
def test_an_encoder_at_its_own_grid_computes_the_same_numbers(position: str) -> None:
    encoder, images = build_encoder(position), torch.rand(2, 3, 8, 12)
    assert torch.equal(encoder.at_grid(OLD)(images), encoder(images))


@pytest.mark.parametrize("position", ENCODER_POSITIONS)
@pytest.mark.parametrize("grid", [NEW, Grid(3, 3), Grid(9, 2)])
def test_an_encoder_at_another_grid_is_the_one_built_for_it_with_the_same_weights(position: str, grid: Grid) -> None:
    encoder = build_encoder(position)
    other = encoder.at_grid(grid)
    built = build_encoder(position, grid)
    weights = dict(encoder.state_dict())
    if "position.position_embedding" in weights:
        weights["position.position_embedding"] = encoder.position.at_grid(grid).position_embedding
    built.load_state_dict(weights)
    images = torch.rand(2, 3, grid.height * 2, grid.width * 2)
    assert torch.equal(other(images), built(images))
    assert encoder.grid == OLD
    assert encoder(torch.rand(2, 3, 8, 12)).shape == (2, 24, 24)


def test_the_two_encoders_share_their_weights_and_not_their_learned_positions() -> None:
    encoder = build_encoder("learned").requires_grad_(False)
    other, same = encoder.at_grid(NEW), encoder.at_grid(OLD)
    mine, others = dict(encoder.named_parameters()), dict(other.named_parameters())
    assert [name for name in mine if mine[name] is not others[name]] == ["position.position_embedding"]
    assert not others["position.position_embedding"].requires_grad
    assert same.position.position_embedding.data_ptr() != encoder.position.position_embedding.data_ptr()


def test_trained_positions_of_a_plugin_that_cannot_say_what_they_are_elsewhere_are_refused() -> None:
    class Scaled(PositionEmbedding):
        def __init__(self, params: ComponentParams, grid: Grid, embed_dim: int, num_heads: int) -> None:
            super().__init__(params, grid, embed_dim, num_heads)
            self.scale = torch.nn.Parameter(torch.ones(1))

    with pytest.raises(ConfigError, match=r"Scaled .* grid of 4x6 .* one of 7x5; .*at_grid"):
        Scaled(ComponentParams(), OLD, 24, 3).at_grid(NEW)
