"""Packed, padded and fixed buffers of tokens: by loops over every sequence, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.compaction import Compaction
from jepa_lab.models.packing import PackedSizes, Packing, pack_into, pad
from jepa_lab.models.rows import Rows
from jepa_lab.models.sequences import (
    EqualLengths,
    PaddedForAttention,
    PaddedSequences,
    Sequences,
    VariableLengths,
)
from tests.packers import pack_exactly

NUM_PATCHES = 9


def drawn_masks(batch: int = 5, views: int = 2, blocks: int = 3, seed: int = 0) -> Masks:
    """Masks of every length, at least one context patch, some blocks empty."""
    generator = torch.Generator().manual_seed(seed)

    def patches(sequences: int, longest: int, fewest: int) -> Patches:
        indices = torch.rand(batch, sequences, NUM_PATCHES, generator=generator).argsort(dim=-1)[..., :longest]
        counts = torch.randint(fewest, longest + 1, (batch, sequences, 1), generator=generator)
        valid = torch.arange(longest) < counts
        return Patches(indices.masked_fill(~valid, 0), valid)

    return Masks(patches(views, 6, 1), patches(blocks, 4, 0))


def needed(masks: Masks, more: int = 0) -> PackedSizes:
    return PackedSizes(*(int(size) + more for size in PackedSizes.of(masks)))


def into(masks: Masks, num_patches: int) -> Packing:
    return pack_into(masks, num_patches, needed(masks, more=11), has_kernel=False)


def into_no_room_to_spare(masks: Masks, num_patches: int) -> Packing:
    return pack_into(masks, num_patches, needed(masks), has_kernel=False)


def into_with_kernel(masks: Masks, num_patches: int) -> Packing:
    return pack_into(masks, num_patches, needed(masks, more=11), has_kernel=True)


WAYS = [pad, pack_exactly, into, into_no_room_to_spare, into_with_kernel]


def kernel_for_variable_lengths(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, same: Tensor, longest: int, too: int
) -> Tensor:
    """What a kernel for variable lengths promises: nothing is written behind the last sequence."""
    assert starts is same
    assert query.shape[-1] % 8 == 0
    assert longest == too
    assert starts.dtype == torch.int32
    out = torch.full_like(query, float("nan"))
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        assert 0 <= end - begin <= longest
        heads = [each[begin:end].transpose(0, 1) for each in (query, key, value)]
        out[begin:end] = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(0, 1)
    return out


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(varlen, "varlen_attn", kernel_for_variable_lengths)


def test_rows_are_taken_and_their_gradient_is_that_of_indexing() -> None:
    tokens = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    compaction = Compaction.exact(torch.tensor([[True, False, True], [False, True, True]]))
    factors = torch.randn(6, 3, dtype=torch.float64)
    (compaction.pad().of(tokens) * factors).sum().backward()
    assert tokens.grad is not None
    assert torch.equal(tokens.grad, factors[[0, 2, 4, 5]])


@pytest.mark.parametrize("rows_of", [Compaction.pad, Compaction.drop])
@pytest.mark.parametrize("size", [None, 13, 20])
def test_the_gradient_of_every_taking_is_right(rows_of: Callable[[Compaction], Rows], size: int | None) -> None:
    valid = torch.arange(5) < torch.tensor([[3], [0], [5], [1], [4]])
    compaction = Compaction.exact(valid) if size is None else Compaction.of_size(valid, size)
    rows = rows_of(compaction)
    tokens = torch.randn(len(rows.takers.rows), 2, dtype=torch.float64, requires_grad=True)
    # Rows and entries that hold nothing must get no gradient: their results do not count.
    real = torch.ones(len(compaction), dtype=torch.bool) if compaction.real is None else compaction.real
    counts = (valid.flatten() if rows_of is Compaction.pad else real)[:, None]
    assert torch.autograd.gradcheck(lambda given: rows.of(given).masked_fill(~counts, 0.0), tokens)


@pytest.mark.parametrize("pack", WAYS)
def test_every_real_token_of_a_packing_is_where_the_masks_say(pack: Callable[[Masks, int], Packing]) -> None:
    masks = drawn_masks()
    packing = pack(masks, NUM_PATCHES)
    context, target = masks.context, masks.target
    batch, views, longest = context.shape
    assert packing.context.rows is not None
    marks = packing.context.rows.to(torch.float64)[:, None]  # image * N + patch
    padded = packing.pad_context.of(marks).view(batch, views, longest)
    expected = torch.arange(batch)[:, None, None] * NUM_PATCHES + context.indices
    assert torch.equal(padded[context.validity()], expected[context.validity()].double())
    assert torch.equal(packing.context.images, packing.context.rows // NUM_PATCHES)
    assert torch.equal(packing.context.patches[0], packing.context.rows % NUM_PATCHES)
    # Mask tokens, and the predictions that come of them.
    pairs = packing.pairs
    wanted = pairs.spread.of(pairs.target_patches[0].double()[:, None]).view(batch, views, *target.shape[1:])
    valid = target.validity()[:, None].expand_as(wanted)
    assert torch.equal(wanted[valid], target.indices[:, None].expand_as(wanted)[valid].double())
    # The tokens of the pairs come from where their places say, and what is read of them are the mask tokens.
    merged = pairs.merge.of(packing.context.patches[0].double()[:, None], pairs.target_patches[0].double()[:, None])
    assert torch.equal(merged[:, 0], pairs.patches[0].double())
    real = valid.sum() if pack is not pad else valid.numel()
    assert torch.equal(pairs.read.of(merged)[:real], pairs.target_patches[0].double()[:real, None])


def heads(size: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 2, 3, dtype=torch.float64, generator=generator) for _ in range(3)]


LENGTHS = torch.tensor([1, 2, 2, 4, 4, 4])


def layouts() -> list[tuple[str, Sequences, Tensor]]:
    """Ways to lay sequences of `LENGTHS` out, and in which row each token stands."""
    valid = torch.arange(4) < LENGTHS[:, None]
    tokens = int(LENGTHS.sum())
    rows = torch.arange(tokens)
    fixed = Compaction.of_size(valid, tokens + 9)
    return [
        ("equal lengths", EqualLengths.sorted(LENGTHS), rows),
        ("padded", PaddedSequences.of(valid, (6, 4)), valid.flatten().nonzero().flatten()),
        ("padded for attention", PaddedForAttention(Compaction.exact(valid)), rows),
        ("padded for attention, filled up", PaddedForAttention(fixed), rows),
        ("variable lengths", VariableLengths.filling(LENGTHS, tokens, 4), rows),
        ("variable lengths, filled up", VariableLengths.filling(LENGTHS, tokens + 9, 4), rows),
    ]


@pytest.mark.parametrize(
    ("name", "sequences", "rows"), layouts(), ids=lambda each: each if isinstance(each, str) else ""
)
def test_attention_and_its_gradient_are_those_of_each_sequence_by_itself(
    name: str, sequences: Sequences, rows: Tensor
) -> None:
    tokens = heads(int(LENGTHS.sum()))
    size = {"padded": 24}.get(name, len(rows) + (9 if "filled up" in name else 0))
    given = [torch.zeros(size, 2, 3, dtype=torch.float64).index_copy(0, rows, each) for each in tokens]
    for each in (*given, *tokens):
        each.requires_grad_()
    found = sequences.attend(*given)
    assert found.isfinite().all()
    expected = []
    for part in zip(*(each.split(LENGTHS.tolist()) for each in tokens), strict=True):
        query, key, value = (each.transpose(0, 1) for each in part)
        weights = (query @ key.transpose(-1, -2) / 3**0.5).softmax(dim=-1)
        expected.append((weights @ value).transpose(0, 1))
    factors = heads(len(rows), seed=1)[0]
    assert torch.allclose(found[rows], torch.cat(expected), rtol=0, atol=1e-14)
    (found[rows] * factors).sum().backward()
    (torch.cat(expected) * factors).sum().backward()
    for mine, its in zip(given, tokens, strict=True):
        assert mine.grad is not None
        assert its.grad is not None
        assert torch.allclose(mine.grad[rows], its.grad, rtol=0, atol=1e-14)
        others = torch.ones(size, dtype=torch.bool).index_fill(0, rows, False)
        assert not mine.grad[others].any()


@pytest.mark.parametrize("short", ["context", "pairs", "targets"])
def test_a_buffer_that_is_too_small_is_noticed(short: str) -> None:
    masks, sizes = drawn_masks(), needed(drawn_masks())
    assert pack_into(masks, NUM_PATCHES, sizes, has_kernel=False).fits
    less = replace(sizes, **{short: getattr(sizes, short) - 1})
    assert not pack_into(masks, NUM_PATCHES, less, has_kernel=False).fits
    assert pack_exactly(masks, NUM_PATCHES).fits is None
