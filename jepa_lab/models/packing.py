"""The tokens of a batch in buffers: which patch of which image each one is, and which ones make a sequence.

A packing is made of the masks of a batch. Three ways to make one give the same loss and the same gradients:

- `WithoutPadding`: no row is padding. The host waits for the counts, which costs nothing on a CPU.
- `pack_into`: buffers of fixed sizes, filled up at their ends. The host waits for nothing; whoever calls must know that
  all tokens find room.
- `pad`: every row of the masks has a token, padding too; shapes depend on the masker alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.compaction import Compaction
from jepa_lab.models.rows import Rows, RowsOfTwo, Takers
from jepa_lab.models.sequences import EqualLengths, PaddedForAttention, PaddedSequences, Sequences, VariableLengths
from jepa_lab.targets.rows import TargetRows


@dataclass(frozen=True)
class PackedPatches:
    """Patches of images as the tokens of a buffer.

    Attributes:
        rows: [n] int64, image * N + patch; None for all patches of all images in raster order.
        patches: [1, n] int64, the place of each token on the grid; [1, N] for whole images, which share them.
        images: [n] int64, the image of each token.
        sequences: of the tokens, one a view.
    """

    rows: Tensor | None
    patches: Tensor
    images: Tensor
    sequences: Sequences

    @classmethod
    def whole(cls, num_images: int, num_patches: int, device: torch.device) -> PackedPatches:
        """All patches of images."""
        images = torch.arange(num_images, device=device).repeat_interleave(num_patches)
        patches = torch.arange(num_patches, device=device)[None]
        return cls(None, patches, images, PaddedSequences((num_images, num_patches), None))

    @classmethod
    def padded(cls, patches: Patches, num_patches: int) -> PackedPatches:
        """Patches [B, K] of each image, with a token for padding too."""
        batch, length = patches.indices.shape
        images = torch.arange(batch, device=patches.device).repeat_interleave(length)
        places = patches.indices.flatten()
        sequences = PaddedSequences.of(patches.valid, (batch, length))
        return cls(images * num_patches + places, places[None], images, sequences)


@dataclass(frozen=True)
class PackedPairs:
    """What the predictor computes: for every pair of a context view and a target block the tokens of both.

    Attributes:
        merge: makes the tokens of all pairs, [n] of them, of those of the contexts and of the mask tokens.
        patches: [1, n] int64, the place of each token of the pairs on the grid.
        target_patches: [1, m] int64, the places of the mask tokens.
        sequences: of the tokens of the pairs.
        read: takes the target tokens [m] out of those of the pairs.
        spread: puts predictions [m, ...] where the masks have them, [B * E * M * T, ...].
    """

    merge: RowsOfTwo
    patches: Tensor
    target_patches: Tensor
    sequences: Sequences
    read: Rows
    spread: Rows


@dataclass(frozen=True)
class Packing:
    """The tokens of a batch.

    Attributes:
        context: of the context views. pad_context: puts their tokens [n, ...] where the masks have them,
            [B * E * K, ...]; drop_context: the inverse.
        pairs: of the predictor.
        target_rows: of the target encoder, where only target patches are read.
        fits: scalar bool, whether all tokens have found room in buffers of fixed sizes; None where they have in any
            case. They have unless the counts that chose the sizes were wrong.
    """

    context: PackedPatches
    pad_context: Rows
    drop_context: Rows
    pairs: PackedPairs
    target_rows: TargetRows
    fits: Tensor | None

    def padded(self, context: Tensor, masks: Masks) -> Tensor:
        """Tokens [n, D] of the context views where the masks have them, [B, E, K, D]; without meaning at padding."""
        return self.pad_context.of(context).unflatten(0, masks.context.shape)


@dataclass(frozen=True)
class PackedSizes:
    """Rows of the buffers of a batch: tokens of the contexts, of the pairs, and mask tokens."""

    context: int
    pairs: int
    targets: int

    @classmethod
    def of(cls, masks: Masks) -> tuple[Tensor, Tensor, Tensor]:
        """What the masks of a batch need, on their device: context, pairs and mask tokens, scalar int64 each."""
        context, target = masks.context.counts(), masks.target.counts()  # [B, E], [B, M]
        views, blocks = context.shape[1], target.shape[1]
        targets = target.sum() * views
        return context.sum(), context.sum() * blocks + targets, targets


class Packer(Protocol):
    """Lays the tokens of a batch out."""

    def __call__(self, masks: Masks, num_patches: int, level: int = 0) -> Packing:
        """The tokens of masks.

        Args:
            num_patches: N of the images' grid. level: of a hierarchy, to which the masks belong; 0 is the finest.
        """


CONTEXT, PAIRS, TARGETS = range(3)
"""The buffers of a packing: tokens of the context views, of the pairs, and mask tokens."""

_Compact = Callable[[Tensor, int], tuple[Compaction, Sequences]]
"""Entries [S, L] bool that are no padding, and which buffer it is for -> rows, and the sequences that they make."""


def pad(masks: Masks, num_patches: int, level: int = 0) -> Packing:
    """Tokens for padding too, where the masks have some."""

    def compact(valid: Tensor, buffer: int) -> tuple[Compaction, Sequences]:
        return Compaction.padded(valid), PaddedSequences.of(valid, (valid.shape[0], valid.shape[1]))

    return _pack(masks, num_patches, compact, TargetRows.of_fixed_size)


@dataclass(frozen=True)
class WithoutPadding:
    """Packs so that no token is padding. The host waits for the counts, which costs nothing on a CPU.

    Sequences of one length lie together, which leaves nothing of the attention to padding either, unless so many short
    groups would take more time than padding for the attention alone.

    Attributes:
        encoder_dim, predictor_dim: features of a token of each.
    """

    encoder_dim: int
    predictor_dim: int

    def __call__(self, masks: Masks, num_patches: int, level: int = 0) -> Packing:
        """See `Packer`."""
        widths = (self.encoder_dim, self.predictor_dim)

        def compact(valid: Tensor, buffer: int) -> tuple[Compaction, Sequences]:
            if buffer == TARGETS:
                return _for_attention(Compaction.exact(valid))
            lengths, order = valid.sum(dim=1).sort(stable=True)
            together = EqualLengths.sorted(lengths)
            if together.saved_flops(widths[buffer]) < _FLOPS_WORTH_A_GROUP * len(together.groups):
                return _for_attention(Compaction.exact(valid))
            return Compaction.exact(valid, order), together

        return _pack(masks, num_patches, compact, TargetRows.exact)


_FLOPS_WORTH_A_GROUP = 1e6
"""A group of sequences must save this much of the attention, gradients included, to be computed by itself.

Measured on a CPU: with 64 images of at most 15 tokens of 64 features, about nine groups took 0.5 ms a layer more than
padding; with 32 images of at most 56 tokens of 192, a step without groups took 1.12 times as long.
"""


def _for_attention(compaction: Compaction) -> tuple[Compaction, Sequences]:
    return compaction, PaddedForAttention(compaction)


def pack_into(masks: Masks, num_patches: int, sizes: PackedSizes, *, has_kernel: bool) -> Packing:
    """Tokens in buffers of fixed sizes.

    Args:
        sizes: at least what the masks need (`PackedSizes.of`).
        has_kernel: whether the attention is one for variable lengths; otherwise it pads.
    """
    rows = (sizes.context, sizes.pairs, sizes.targets)

    def compact(valid: Tensor, buffer: int) -> tuple[Compaction, Sequences]:
        compaction = Compaction.of_size(valid, rows[buffer])
        if not has_kernel:
            return _for_attention(compaction)
        return compaction, VariableLengths.filling(valid.sum(dim=1), rows[buffer], valid.shape[1])

    return _pack(masks, num_patches, compact, TargetRows.of_fixed_size)


@dataclass(frozen=True)
class FixedSizes:
    """Packs into buffers of fixed sizes, which must hold all tokens.

    Attributes:
        of_levels: the sizes of every level.
        has_kernel: whether the attention is one for variable lengths; otherwise it pads.
    """

    of_levels: tuple[PackedSizes, ...]
    has_kernel: bool

    def __call__(self, masks: Masks, num_patches: int, level: int = 0) -> Packing:
        """See `Packer`."""
        return pack_into(masks, num_patches, self.of_levels[level], has_kernel=self.has_kernel)


def _pack(masks: Masks, num_patches: int, compact: _Compact, rows_of: Callable[[Patches, int], TargetRows]) -> Packing:
    batch, views, longest = masks.context.indices.shape
    blocks, block = masks.target.indices.shape[1:]
    context_valid, target_valid = masks.context.validity(), masks.target.validity()

    contexts, of_contexts = compact(context_valid.flatten(0, 1), CONTEXT)  # entries [B * E, K]
    patches = contexts.of_entries(masks.context.indices.flatten(0, 1))
    images = contexts.entries // (views * longest)
    context = PackedPatches(images * num_patches + patches, patches[None], images, of_contexts)

    pair_valid = _pairs(context_valid, target_valid)  # [P, K + T] with P = B * E * M
    pairs, of_pairs = compact(pair_valid, PAIRS)
    target_of_pair = pair_valid[:, longest:]  # [P, T]
    targets, _ = compact(target_of_pair, TARGETS)
    slots = contexts.slots.view(batch, views, longest)
    source = torch.cat((_per_pair_of_context(slots, blocks), len(contexts) + targets.slots), dim=1)  # [P, K + T]
    used = pairs.slots.view(batch, views, blocks, longest + block)
    takers = used[..., :longest].transpose(2, 3).reshape(-1, blocks).index_select(0, contexts.entries)  # [n, M]
    of_targets = targets.of_entries(pairs.slots[:, longest:])  # [m]: where the pairs hold the mask tokens

    index = pairs.of_entries(source)
    real = None if targets.real is None else targets.real[:, None]
    merge = RowsOfTwo(
        index,
        Takers(takers, None if contexts.real is None else contexts.real[:, None].expand_as(takers)),
        Takers(of_targets[:, None], real),
    )
    is_target = (index >= len(contexts)) if pairs.real is None else (index >= len(contexts)) & pairs.real
    read = Rows(of_targets, Takers((index - len(contexts)).clamp(min=0)[:, None], is_target[:, None]))
    places = _pairs(masks.context.indices, masks.target.indices)
    target_patches = targets.of_entries(places[:, longest:])
    spread = targets.pad()
    packed = PackedPairs(merge, pairs.of_entries(places)[None], target_patches[None], of_pairs, read, spread)
    target_rows = rows_of(masks.target, num_patches)
    room = [each.fits for each in (contexts, pairs, targets) if each.fits is not None]
    fits = torch.stack(room).all() if room else None
    return Packing(context, contexts.pad(), contexts.drop(), packed, target_rows, fits)


def _pairs(context: Tensor, target: Tensor) -> Tensor:
    """One sequence for every pair: [B, E, K] and [B, M, T] -> [B * E * M, K + T]."""
    views, blocks = context.shape[1], target.shape[1]
    target = target.unsqueeze(1).expand(-1, views, -1, -1).flatten(0, 2)
    return torch.cat((_per_pair_of_context(context, blocks), target), dim=1)


def _per_pair_of_context(context: Tensor, blocks: int) -> Tensor:
    """[B, E, K] -> [B * E * M, K]: once for every target block."""
    return context.unsqueeze(2).expand(-1, -1, blocks, -1).flatten(0, 2)
