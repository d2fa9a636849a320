"""Position embeddings against the reference's numbers and by their defining properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_lab.grid import Grid
from jepa_lab.positions.base import POSITIONS, PositionInputs, _turn, apply_rotation
from jepa_lab.positions.learned import TakeRows, take_rows
from jepa_lab.positions.rope import RopeParams, RotaryPosition
from jepa_lab.positions.sincos import SinCosPosition, sincos_2d
from jepa_lab.registry import ComponentParams
from tests.golden.reference import FOLDER


@pytest.mark.parametrize(("key", "dim", "side"), [("192x8", 192, 8), ("48x4", 48, 4)])
def test_sincos_equals_the_reference(key: str, dim: int, side: int) -> None:
    golden = load_file(FOLDER / "sincos.safetensors")[key]
    assert (sincos_2d(Grid(side, side), dim) - golden).abs().max() < 1e-12


def test_sincos_of_a_wide_grid_repeats_columns_in_the_first_half_and_rows_in_the_second() -> None:
    table = sincos_2d(Grid(3, 5), 16).reshape(3, 5, 16)
    assert torch.equal(table[0, :, :8], table[2, :, :8])
    assert torch.equal(table[:, 0, 8:], table[:, 4, 8:])
    assert torch.equal(table[1, 1, :8], table[1, 1, 8:])


def test_sincos_adds_the_rows_of_its_table() -> None:
    position = SinCosPosition(ComponentParams(), Grid(2, 3), 8, 2)
    out = position.add(torch.zeros(1, 2, 8), torch.tensor([[4, 1]]))
    assert torch.equal(out[0], sincos_2d(Grid(2, 3), 8).float()[[4, 1]])


def attention_scores(
    position: RotaryPosition, indices: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """Products of one query and one key vector placed at every position, [K, K]."""
    rotation = position.rotation(indices[None])
    queries = apply_rotation(query.expand(1, 1, len(indices), -1), rotation)
    keys = apply_rotation(key.expand(1, 1, len(indices), -1), rotation)
    return (queries @ keys.transpose(-1, -2))[0, 0]


def test_rope_attention_depends_on_relative_position_alone() -> None:
    grid = Grid(5, 7)
    position = RotaryPosition(RopeParams(), grid, 32, 2).double()
    query, key = torch.randn(2, 16, dtype=torch.float64)
    scores = attention_scores(position, torch.arange(35), query, key).reshape(5, 7, 5, 7)
    assert torch.allclose(scores[:-1, :-1, :-1, :-1], scores[1:, 1:, 1:, 1:], atol=1e-5)
    assert not torch.allclose(scores[0, 0, 0, 1], scores[0, 0, 0, 2], atol=1e-4)
    assert not torch.allclose(scores[0, 0, 0, 1], scores[0, 0, 1, 0], atol=1e-4)


def test_rope_keeps_lengths_and_leaves_the_origin_alone() -> None:
    position = RotaryPosition(RopeParams(), Grid(4, 4), 32, 2)
    x = torch.randn(1, 2, 16, 16)
    rotated = apply_rotation(x, position.rotation(torch.arange(16)[None]))
    assert torch.allclose(rotated.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(rotated[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rotations_are_bitwise_the_same_in_complex_and_in_real_numbers(dtype: torch.dtype) -> None:
    position = RotaryPosition(RopeParams(), Grid(3, 5), 48, 3).to(torch.promote_types(dtype, torch.float32))
    cosine, sine = position.rotation(torch.arange(15).expand(2, -1))
    tokens = torch.randn(2, 15, 2, 3, 16, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    queries_and_keys = tokens.permute(2, 0, 3, 1, 4)  # [2, B, H, K, head_dim]
    upstream = torch.randn(2, 2, 3, 15, 16, generator=torch.Generator().manual_seed(1)).to(cosine.dtype)
    here, real = apply_rotation(queries_and_keys, (cosine, sine)), _turn(queries_and_keys, cosine, sine)
    assert here.dtype == real.dtype
    assert torch.equal(here, real)
    gradient, real_gradient = (torch.autograd.grad(rotated, tokens, upstream)[0] for rotated in (here, real))
    # The real form rounds each of two terms to half precision before it adds them.
    assert torch.equal(gradient, real_gradient) or dtype.itemsize < 4
    assert torch.allclose(gradient, real_gradient, rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_half_precision_positions_turn_half_precision_tokens() -> None:
    position = RotaryPosition(RopeParams(), Grid(3, 5), 48, 3).to(torch.bfloat16)
    heads = torch.randn(1, 3, 15, 16, dtype=torch.bfloat16)
    assert apply_rotation(heads, position.rotation(torch.arange(15)[None])).dtype == torch.bfloat16


def test_rope_adds_nothing() -> None:
    position = RotaryPosition(RopeParams(), Grid(4, 4), 32, 2)
    tokens = torch.randn(1, 3, 32)
    assert torch.equal(position.add(tokens, torch.tensor([[1, 2, 3]])), tokens)


def test_unsuitable_widths_are_named() -> None:
    grid = Grid(4, 4)
    assert "head width" in str(RotaryPosition.check(RopeParams(), PositionInputs(grid, 24, 4)))
    assert RotaryPosition.check(RopeParams(), PositionInputs(grid, 32, 4)) is None
    assert "multiple of 4" in str(SinCosPosition.check(ComponentParams(), PositionInputs(grid, 30, 2)))


def test_the_gradient_of_learned_positions_is_that_of_indexing() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(9, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    indices = torch.randint(0, 7, (5, 3), generator=generator)  # rows recur, and two are never taken
    weights = torch.randn(5, 3, 4, dtype=torch.float64, generator=generator)
    assert torch.equal(TakeRows.apply(table, indices), table[indices])
    (ours,) = torch.autograd.grad((TakeRows.apply(table, indices) * weights).sum(), table)
    (expected,) = torch.autograd.grad((table[indices] * weights).sum(), table)
    assert torch.allclose(ours, expected, rtol=1e-14, atol=1e-14)
    assert torch.autograd.gradcheck(lambda rows: TakeRows.apply(rows, indices), (table,))


def test_the_gradient_of_learned_positions_keeps_single_precision_under_autocast() -> None:
    table = torch.zeros(4, 8, requires_grad=True)
    indices = torch.zeros(1, 257, dtype=torch.int64)  # bf16 cannot count to 257
    with torch.autocast("cpu", dtype=torch.bfloat16):
        TakeRows.apply(table, indices).sum().backward()
    assert table.grad is not None
    assert table.grad[0].eq(257).all()


def test_learned_positions_take_their_rows_so_on_every_device_but_a_cpu() -> None:
    table = torch.zeros(4, 8, device="meta", requires_grad=True)
    taken = take_rows(table, torch.zeros(1, 3, dtype=torch.int64, device="meta"))
    assert taken.grad_fn is not None
    assert "TakeRows" in taken.grad_fn.name()


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_gradient_of_learned_positions_adds_up_no_rows_one_by_one() -> None:
    grid = Grid(4, 4)
    position = POSITIONS.get("learned").component(ComponentParams(), grid, 8, 2)
    with _Operators() as seen:
        TakeRows.apply(position.position_embedding, torch.zeros(3, 5, dtype=torch.int64)).sum().backward()
    assert not [name for name in seen.names if "index_put" in name or "scatter" in name]


@pytest.mark.parametrize("name", ["learned", "sincos", "rope"])
def test_positions_that_all_sequences_share_may_be_given_once(name: str) -> None:
    position = POSITIONS.get(name).component(POSITIONS.get(name).params_type(), Grid(2, 3), 8, 2)
    shared = torch.arange(6)[None]
    tokens = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(position.add(tokens, shared), position.add(tokens, shared.expand(4, -1)))
    rotation = position.rotation(shared)
    if rotation is not None:
        for once, each in zip(rotation, position.rotation(shared.expand(4, -1)), strict=True):
            assert torch.equal(once.expand_as(each), each)
